"""The Ray task of preparation: a batch of source rows in, one shard on storage and one small row about each of them out."""

import hashlib
import os
import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raykd import storage
from raykd.config.data import DataConfig
from raykd.data import rejects
from raykd.data.audio import AudioError
from raykd.data.corpus import SHARD_SCHEMA
from raykd.data.format import SAMPLE_RATE, SpeechFormat
from raykd.data.markers import without_markers
from raykd.data.mel import log_mel
from raykd.data.rejects import RejectedError
from raykd.data.row_audio import samples_of
from raykd.data.text import LabelEncoder, clean
from raykd.errors import UserError

INDEX_FIELDS = (
    ("id", pa.string()),
    ("language", pa.string()),
    ("text", pa.string()),
    ("split", pa.string()),
    ("recording", pa.string()),
    ("start_s", pa.float64()),
    ("duration_s", pa.float64()),
    ("n_frames", pa.int32()),
    ("n_tokens", pa.int32()),
    ("sound", pa.string()),
    ("shard", pa.string()),
    ("row", pa.int32()),
)
"""Columns of the index of a corpus of speech."""
OUTCOME_SCHEMA = pa.schema(
    [
        *INDEX_FIELDS,
        ("path", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("failure", pa.string()),
    ]
)
"""What became of a source row: its place in a shard, or the reason why it has none. A `failure` ends the preparation."""

_FASTEST_CHARACTERS_PER_S = 40.0
_SLACK_S = 0.5
_SLOWEST_CHARACTERS_PER_S = 0.5
_PAUSE_S = 5.0
_MOST_CHARACTERS = 20_000
"""Of a transcript before it is looked at: none of 30 s of speech has a tenth of that."""


@dataclass(frozen=True)
class ShardMaker:
    """Turns batches of utterance rows (`data.utterances.SCHEMA`) into shards of a corpus."""

    corpus_path: str
    config: DataConfig
    speech_format: SpeechFormat
    encoder: LabelEncoder
    needs_text: bool = True
    """Whether an utterance without a transcript cannot be used."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`write_shard` for Ray Data, which would bury an exception in its own: a failure is returned as a row of its own."""
        try:
            return self.write_shard(batch)
        except UserError as error:
            return pa.Table.from_pylist([{"failure": str(error)}], OUTCOME_SCHEMA)

    def write_shard(self, batch: pa.Table) -> pa.Table:
        """Write the usable rows to a shard and return one row of `OUTCOME_SCHEMA` for each row.

        The shard is named by its rows, so a task that runs again, or another run over the same data, writes the same file.

        Raises:
            UserError: the shard cannot be written.
        """
        shard = f"shard-{_digest(batch)}.arrow"
        path = storage.join(self.corpus_path, shard)
        outcomes: list[dict[str, Any]] = []
        try:
            with new_file(path) as sink, pa.ipc.new_file(sink, SHARD_SCHEMA) as writer:
                written = 0
                for number in range(batch.num_rows):
                    row = batch.slice(number, 1).to_pylist()[0]
                    outcome, record = self._outcome(row)
                    if record is not None:
                        writer.write_batch(record)
                        outcome |= {"shard": shard, "row": written}
                        written += 1
                    outcomes.append(outcome)
        except OSError as error:
            raise UserError(
                f"data.cache_dir: {path} cannot be written ({error.strerror or error}); make room or choose another folder"
            ) from None
        return pa.Table.from_pylist(outcomes, OUTCOME_SCHEMA)

    def _outcome(self, row: dict[str, Any]) -> tuple[dict[str, Any], pa.RecordBatch | None]:
        outcome = {name: row[name] for name in ("id", "language", "text", "split", "recording", "path")}
        outcome["start_s"] = row["start_s"] if row["audio"] is None else None  # what was embedded is alone now
        try:
            record = self.prepare(row)
        except RejectedError as error:
            return outcome | {"reason": error.reason, "detail": error.detail}, None
        except Exception as error:  # a row that nobody foresaw must not end a job of millions
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return outcome | {"reason": rejects.NOT_PROCESSED, "detail": detail}, None
        sound = hashlib.blake2b(record["mel"], digest_size=8).hexdigest()
        outcome |= record | {"n_tokens": len(record["tokens"]) - 1, "sound": sound}
        return outcome, pa.RecordBatch.from_pylist([record], SHARD_SCHEMA)

    def prepare(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The values of `corpus.SHARD_SCHEMA` of a source row.

        Raises:
            RejectedError: the row cannot be used.
        """
        if row["problem"]:
            raise RejectedError(row["problem"])
        samples_S = self._samples(row)
        duration_s = len(samples_S) / SAMPLE_RATE
        text = self._text(row["text"] or "")
        language = row["language"]
        if language not in self.encoder.languages:
            raise RejectedError(rejects.UNKNOWN_LANGUAGE, str(language))
        if row["text"] is None and not self.needs_text:
            tokens = [*self.encoder.prefix(language), self.encoder.eot_id]
        else:
            tokens = self._tokens(text, language, duration_s)
        mel_MF = log_mel(samples_S, self.speech_format.n_mels, self.speech_format.window_frames)
        return {
            "id": row["id"],
            "language": language,
            "text": text,
            "duration_s": duration_s,
            "n_frames": mel_MF.shape[1],
            "mel": mel_MF.tobytes(),
            "tokens": tokens,
            "n_prompt": 0,
        }

    def _text(self, text: str) -> str:
        """The transcript in one spelling, without what was not spoken."""
        if len(text) > _MOST_CHARACTERS:
            raise RejectedError(rejects.TEXT_TOO_LONG, f"{len(text)} characters, limit {_MOST_CHARACTERS}")
        text = clean(text)
        if self.config.markers == "keep":
            return text
        spoken = without_markers(text)
        if self.config.markers == "reject" and spoken != text:
            raise RejectedError(rejects.MARKERS, text[:100])
        return spoken

    def _tokens(self, text: str, language: str, duration_s: float) -> list[int]:
        """Label ids of a transcript that can be that of so much speech."""
        characters = spoken_characters(text)
        if characters == 0:
            raise RejectedError(rejects.NO_TEXT, text[:100])
        if characters < self.config.min_characters:
            raise RejectedError(
                rejects.TEXT_TOO_SHORT, f"{characters} characters, data.min_characters={self.config.min_characters}"
            )
        tokens = self.encoder.encode(text, language)
        most = min(self.config.max_label_tokens, self.speech_format.max_label_tokens)
        if len(tokens) > most:
            raise RejectedError(rejects.TOO_MANY_TOKENS, f"{len(tokens)} tokens, limit {most}")
        if not text_fits(characters, duration_s):
            raise RejectedError(rejects.TEXT_DOES_NOT_FIT, f"{characters} characters in {duration_s:.1f} s")
        return tokens

    def _samples(self, row: Mapping[str, Any]) -> np.ndarray:
        longest_s = min(self.config.max_duration_s, self.speech_format.window_s)
        try:
            samples_S = samples_of(row, longest_s)
        except AudioError as error:
            raise RejectedError(error.reason) from None
        if len(samples_S) < self.config.min_duration_s * SAMPLE_RATE:
            seconds = len(samples_S) / SAMPLE_RATE
            raise RejectedError(f"too short (under {self.config.min_duration_s:g} s)", f"{seconds:.2f} s")
        return samples_S


def spoken_characters(text: str) -> int:
    """Letters, digits and combining marks: what of a text is spoken."""
    return sum(unicodedata.category(character)[0] in "LMN" for character in text)


def text_fits(characters: int, duration_s: float) -> bool:
    """Whether so much text can have been spoken in this time; if not, text and audio do not belong together.

    Too much: over 40 characters a second (fast speech has about 25), half a second granted for trimmed edges. Too little: under
    half a character a second, five seconds granted for pauses; so a long clip with one word is doubted, a short one never.
    """
    too_much = characters > _FASTEST_CHARACTERS_PER_S * (duration_s + _SLACK_S)
    too_little = characters < _SLOWEST_CHARACTERS_PER_S * (duration_s - _PAUSE_S)
    return not (too_much or too_little)


def _digest(batch: pa.Table) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for row in batch.drop_columns(["audio"]).to_pylist():
        digest.update(repr(list(row.values())).encode("utf-8", "surrogatepass"))
    for audio in batch.column("audio"):
        digest.update(audio.as_buffer() or b"-")
    return digest.hexdigest()


@contextmanager
def new_file(path: str) -> Iterator[pa.NativeFile]:
    """A file that appears under its name when it is complete: locally by rename, remotely when the upload ends."""
    filesystem, inner = storage.filesystem_of(path)
    if storage.is_remote(path):
        with filesystem.open_output_stream(inner) as sink:
            yield sink
        return
    partial = f"{inner}.partial-{uuid.uuid4().hex}"
    try:
        with pa.OSFile(partial, "wb") as sink:
            yield sink
        os.replace(partial, inner)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
