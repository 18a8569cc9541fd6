"""A teacher's transcripts of a corpus on storage (`python -m raykd.label`), and which of them are good enough to train on.

Labels are a folder on any pyarrow filesystem: `labels-*.parquet`, one row an utterance, sorted by id, and `labels.json`, what
they were made with, written last; a folder without it holds no finished labels.
"""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raykd import storage
from raykd.config.data import DataConfig, LabelFilter, LabelsSource
from raykd.data.corpus import REJECTS_FILE
from raykd.data.rejects import FILTERED
from raykd.data.sources.part import Part
from raykd.errors import UserError

LABELS_FILE = "labels.json"
LABELS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("split", pa.string()),
        ("duration_s", pa.float64()),
        ("text", pa.string()),
        (
            "segments",
            pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())])),
        ),
        ("avg_log_prob", pa.float64()),
        ("compression_ratio", pa.float64()),
        ("no_speech_prob", pa.float64()),
        ("gold", pa.string()),
        ("words", pa.int64()),
        ("word_errors", pa.int64()),
        ("wer", pa.float64()),
    ]
)
"""`text` and all that follows from it is null for utterances that were not to be labelled, `segments` without timestamps,
`gold` and what is counted against it (after normalisation) where the source has no transcript."""
_DECIDING = ["id", "split", "text", "avg_log_prob", "compression_ratio", "no_speech_prob", "wer"]


@dataclass(frozen=True)
class Labels:
    """Finished labels. Picklable and small."""

    path: str
    made: Mapping[str, Any]
    """`labels.json`."""

    @property
    def data(self) -> DataConfig:
        """Where the speech is, as it was given to `raykd.label`."""
        return DataConfig.model_validate(self.made["data"])

    def rejects(self) -> dict[str, str]:
        """The reasons of the rows of the source that could not be labelled, by id."""
        filesystem, inner = storage.filesystem_of(storage.join(self.path, REJECTS_FILE))
        table = pq.read_table(inner, filesystem=filesystem, columns=["id", "reason"])
        return dict(zip(table.column("id").to_pylist(), table.column("reason").to_pylist(), strict=True))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, sorted by id."""
        filesystem, inner = storage.filesystem_of(self.path)
        names = sorted(name for name in self.made["files"] if name != REJECTS_FILE)
        tables = [pq.read_table(f"{inner}/{name}", filesystem=filesystem, columns=columns) for name in names]
        return pa.concat_tables(tables)


def open_labels(path: str) -> Labels | None:
    """The finished labels in a folder; None when there are none.

    Raises:
        UserError: they cannot be read, or a file is missing or of another size than it was written with.
    """
    try:
        if not storage.exists(storage.join(path, LABELS_FILE)):
            return None
        made = json.loads(storage.read_bytes(storage.join(path, LABELS_FILE)))
        found = storage.sizes_in(path)
        damaged = sorted(name for name, size in made["files"].items() if found.get(name) != size)
        DataConfig.model_validate(made["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: its labels cannot be read ({reason}); remove the folder and label again") from None
    if damaged:
        raise UserError(f"{path}: {damaged[0]} is missing or damaged; remove the folder and label again")
    return Labels(path, made)


def why_dropped(row: Mapping[str, Any], limits: LabelFilter) -> str | None:
    """Why a label is not to be trained on; None: it is.

    Where there is a gold text its error rate decides (distil-whisper's filter), elsewhere the teacher's confidence and how much
    it repeats itself (openai/whisper, transcribe.py: a compression ratio over 2.4, a mean log-probability under -1, and silence
    where both the no-speech token and the mean log-probability say so).
    """
    if not row["text"]:
        return "the teacher heard no words"
    if row["wer"] is not None:
        return f"WER over {limits.max_wer:g}" if limits.max_wer is not None and row["wer"] > limits.max_wer else None
    if limits.max_compression_ratio is not None and row["compression_ratio"] > limits.max_compression_ratio:
        return f"repeats itself (compression ratio over {limits.max_compression_ratio:g})"
    if limits.min_avg_log_prob is not None and row["avg_log_prob"] < limits.min_avg_log_prob:
        silent = limits.max_no_speech_prob is not None and row["no_speech_prob"] > limits.max_no_speech_prob
        return "no speech" if silent else f"unsure (mean log-probability under {limits.min_avg_log_prob:g})"
    return None


def labelled_parts(source: LabelsSource, labels: Labels, parts: Sequence[Part], prefix: str) -> list[Part]:
    """The parts of the speech that was labelled, with the labels."""
    digest = json.dumps([labels.made["files"], labels.made["digest"]], sort_keys=True)
    return [LabelledPart(part, source, digest, prefix) for part in parts]


@dataclass(frozen=True)
class LabelledPart:
    """Rows of another part with the teacher's text in the place of their own."""

    part: Part
    source: LabelsSource
    digest: str
    """Of the labels: a corpus made of others has another key."""
    prefix: str

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows; those that the filter drops carry the reason as their problem."""
        decided = _decided(self.source.path, self.digest)
        for row in self.part.rows():
            yield {**self._labelled(row, decided.find(row["id"])), "id": self.prefix + row["id"]}

    def _labelled(self, row: dict[str, Any], label: Mapping[str, Any] | None) -> dict[str, Any]:
        if row["problem"]:
            return row
        if label is None:
            reason = _decided(self.source.path, self.digest).rejects.get(row["id"])
            return {**row, "problem": reason or "new since the labels were made"}
        row["split"] = label["split"]
        if label["text"] is None:  # gold of a split that was not labelled
            return row
        if label["split"] != "train" and row["text"] is not None:  # what is scored on is what was said
            return row
        dropped = why_dropped(label, self.source.filter)
        if dropped:
            return {**row, "problem": FILTERED + dropped}
        gold = self.source.text == "gold" and row["text"] is not None
        return row if gold else {**row, "text": label["text"]}


@dataclass(frozen=True)
class _Decided:
    """What of the labels a source reads."""

    table: pa.Table
    rejects: Mapping[str, str]

    @cached_property
    def ids(self) -> list[str]:
        return self.table.column("id").to_pylist()

    def find(self, utterance_id: str) -> dict[str, Any] | None:
        place = bisect_left(self.ids, utterance_id)
        if place == len(self.ids) or self.ids[place] != utterance_id:
            return None
        return self.table.slice(place, 1).to_pylist()[0]


@lru_cache(maxsize=2)
def _decided(path: str, digest: str) -> _Decided:
    """Read once a process; `digest` keeps those of a folder apart that was labelled anew."""
    labels = open_labels(path)
    if labels is None:
        raise UserError(f"data.source: {path} holds no finished labels; make them with `python -m raykd.label`")
    return _Decided(labels.table(_DECIDING), labels.rejects())
