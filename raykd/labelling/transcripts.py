"""Transcripts of a corpus by a teacher (`data.labels`), made on any number of actors and resumed where they were interrupted.

Shapes: B utterances of a batch.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from raykd import __version__, storage
from raykd.config.label import LabelConfig
from raykd.data.batches import collate
from raykd.data.corpus import REJECTS_FILE, Corpus, Index, Utterance, read_utterances, write_parquet
from raykd.data.labels import LABELS_FILE, LABELS_SCHEMA, Labels, open_labels
from raykd.data.teacher_cache import read_table
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.evaluation.decode import Confidence, encode, greedy_decode
from raykd.evaluation.normalize import NormalizerChoice
from raykd.evaluation.scoring import score_sentences
from raykd.labelling.plan import Progress, alone, begin, require_same, writing
from raykd.labelling.stage import Item, run_stage
from raykd.models.precision import compute_dtype
from raykd.models.routing import speaking
from raykd.models.whisper import load_whisper
from raykd.parts.targets.target import Ready
from raykd.parts.targets.whisper import WhisperTarget

_ROWS_PER_FILE = 200_000
_TIME_STEP_S = 0.02


def make_labels(
    folder: str,
    teacher: WhisperTarget,
    ready: Ready,
    config: LabelConfig,
    data: dict[str, Any],
    normalizer: NormalizerChoice,
    *,
    gpus: float = 0.0,
    progress: Progress = lambda done, total: None,
) -> Labels:
    """Transcribe the corpus, or what is left of it, and return the labels. Ray must be initialised.

    Args:
        folder: to keep them in.
        teacher: who transcribes.
        ready: the prepared corpus and the teacher's hash.
        config: how.
        data: the data section, with absolute paths, for whoever reads the labels.
        normalizer: of the texts that are compared.
        gpus: of an actor.
        progress: told after each batch.

    Raises:
        UserError: labels are there that were made otherwise, another process makes them, the folder cannot be written, or no
            utterance is to be labelled.
    """
    plan = _plan(teacher, ready, config, data, normalizer)
    with alone(folder):
        done = open_labels(folder)
        if done is not None:
            require_same(folder, done.made, plan)
            return done
        begin(folder, plan)
        index = ready.corpus.index("all")
        wanted = _wanted(index, config)
        if not wanted:
            has = ", ".join(ready.corpus.splits)
            raise UserError(f"label.splits: the data has no {', '.join(config.splits)} to label; it has {has}")
        left = sorted(set(wanted) - _done(folder, index), key=lambda position: -float(index.duration_s[position]))
        items: list[Item] = [
            {"positions": left[start : start + config.batch_size]} for start in range(0, len(left), config.batch_size)
        ]
        job = _Job(folder, teacher, ready.corpus, config, ready.speech_format.tokenizer, normalizer)
        before = len(wanted) - len(left)
        progress(before, len(wanted))
        run_stage(job, items, gpus=gpus, workers=config.workers, progress=lambda rows: progress(before + rows, len(wanted)))
        _finish(folder, plan, ready.corpus, index, len(wanted))
        made = open_labels(folder)
        assert made is not None
        return made


def _plan(
    teacher: WhisperTarget, ready: Ready, config: LabelConfig, data: dict[str, Any], normalizer: NormalizerChoice
) -> dict[str, Any]:
    return {
        "corpus": ready.corpus.key,
        "teacher_hash": ready.teacher_hash,
        "teacher": teacher.model,
        "dtype": teacher.dtype,
        "splits": list(config.splits),
        "timestamps": config.timestamps,
        "max_new_tokens": config.max_new_tokens,
        "normalizer": normalizer,
        "data": data,
        "raykd": __version__,
    }


def _wanted(index: Index, config: LabelConfig) -> list[int]:
    """Positions of the utterances that are labelled: those of the splits, and those without a transcript."""
    splits = index.table.column("split").to_pylist()
    return [n for n, (split, text) in enumerate(zip(splits, index.texts, strict=True)) if split in config.splits or not text]


def _done(folder: str, index: Index) -> set[int]:
    """Positions of the utterances that are labelled already."""
    ids = set(_pieces(folder).column("id").to_pylist())
    return {position for position, one in enumerate(index.ids) if one in ids}


def _pieces(folder: str) -> pa.Table:
    """What the actors have stored, each id once: an interrupted batch may have been cut anew."""
    path = storage.join(folder, "parts")
    names = [name for name in storage.list_dir(path) if name.endswith(".parquet")] if storage.exists(path) else []
    table = pa.concat_tables([LABELS_SCHEMA.empty_table(), *(read_table(storage.join(path, name)) for name in names)])
    table = table.sort_by("id")
    ids = table.column("id").to_pylist()
    return table.filter(pa.array([n == 0 or ids[n] != ids[n - 1] for n in range(len(ids))], pa.bool_()))


def _finish(folder: str, plan: dict[str, Any], corpus: Corpus, index: Index, labelled: int) -> None:
    """Write the rows of all utterances, sorted by id, and `labels.json` last."""
    table = _pieces(folder)
    if table.num_rows != labelled:
        raise AssertionError(f"{folder}: {table.num_rows} of {labelled} labels are there")
    known = set(table.column("id").to_pylist())
    others = [_row(index, position) for position, one in enumerate(index.ids) if one not in known]
    table = pa.concat_tables([table, pa.Table.from_pylist(others, LABELS_SCHEMA)]).sort_by("id")
    with writing(folder):
        for number, start in enumerate(range(0, table.num_rows, _ROWS_PER_FILE)):
            write_parquet(table.slice(start, _ROWS_PER_FILE), storage.join(folder, f"labels-{number:05d}.parquet"))
        write_parquet(corpus.rejects(), storage.join(folder, REJECTS_FILE))
        files = {n: size for n, size in storage.sizes_in(folder).items() if n.startswith("labels-") or n == REJECTS_FILE}
        texts = json.dumps([table.column("id").to_pylist(), table.column("text").to_pylist()])
        made = {**plan, "labelled": labelled, "files": files, "digest": hashlib.sha256(texts.encode()).hexdigest()[:16]}
        storage.write_text(storage.join(folder, LABELS_FILE), json.dumps(made, indent=2, ensure_ascii=False))
        storage.delete_dir(storage.join(folder, "parts"))


def _row(index: Index, position: int) -> dict[str, Any]:
    """What is known of an utterance before it is labelled."""
    gold = str(index.texts[position])
    return {
        "id": index.ids[position],
        "language": index.languages[position],
        "split": index.table.column("split")[position].as_py(),
        "duration_s": float(index.duration_s[position]),
        "gold": gold or None,
    }


@dataclass(frozen=True)
class _Job:
    """What every actor gets."""

    folder: str
    teacher: WhisperTarget
    corpus: Corpus
    config: LabelConfig
    tokenizer: str
    normalizer: NormalizerChoice

    def start(self, device: torch.device) -> Callable[[Item], int]:
        """Load the teacher."""
        model: Any = load_whisper(self.teacher.model, compute_dtype(self.teacher.dtype, device), self.teacher.revision)
        labeller = Labeller(model.to(device).eval(), LabelEncoder(self.tokenizer, self.teacher.revision), self.config)
        index = self.corpus.index("all")

        def label(item: Item) -> int:
            positions = [int(position) for position in item["positions"]]
            utterances = read_utterances(self.corpus.path, index, np.asarray(positions))
            known = [_row(index, position) for position in positions]
            self._store(_scored(known, labeller(utterances), self.normalizer))
            return len(positions)

        return label

    def _store(self, rows: list[dict[str, Any]]) -> None:
        name = hashlib.blake2b(json.dumps([row["id"] for row in rows]).encode(), digest_size=12).hexdigest()
        path = storage.join(self.folder, "parts", f"{name}.parquet")
        with writing(self.folder):
            write_parquet(pa.Table.from_pylist(rows, LABELS_SCHEMA), path)


def _scored(
    known: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]], normalizer: NormalizerChoice
) -> list[dict[str, Any]]:
    """Whole rows: labels beside what is known, and compared with the gold text where there is one."""
    rows = [{**one, **label} for one, label in zip(known, labels, strict=True)]
    with_gold = [row for row in rows if row["gold"] is not None]
    gold, texts, languages = ([str(row[key]) for row in with_gold] for key in ("gold", "text", "language"))
    for row, sentence in zip(with_gold, score_sentences(gold, texts, languages, normalizer), strict=True):
        row |= {"words": sentence.words.length, "word_errors": sentence.words.errors, "wer": sentence.words.rate}
    return rows


class Labeller:
    """A teacher that transcribes batches of utterances. No Ray."""

    def __init__(self, model: Any, encoder: LabelEncoder, config: LabelConfig) -> None:
        self._model, self._encoder, self._config = model, encoder, config

    def __call__(self, utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
        """Text and confidence of each."""
        encoder, config = self._encoder, self._config
        batch = collate(utterances, 2 * self._model.config.max_source_positions, encoder.pad_id)
        prefix_BP = torch.tensor([encoder.prefix(one.language, config.timestamps) for one in utterances])
        confidences = [Confidence() for _ in utterances]
        with speaking(self._model, batch.languages):
            rows = greedy_decode(
                self._model,
                encode(self._model, batch.mel_BMF),
                prefix_BP,
                config.max_new_tokens,
                [encoder.eot_id],
                rule=self._timestamp_rule(prefix_BP.shape[1]) if config.timestamps else None,
                confidences=confidences,
                no_speech_id=encoder.no_speech_id,
            )
        return [self._label(ids, confidence) for ids, confidence in zip(rows, confidences, strict=True)]

    def _label(self, ids: list[int], confidence: Confidence) -> dict[str, Any]:
        text = self._encoder.decode([one for one in ids if one < self._encoder.timestamp_id])
        return {
            "text": text,
            "segments": segments_of(ids, self._encoder) if self._config.timestamps else None,
            "avg_log_prob": confidence.avg_log_prob,
            "compression_ratio": compression_ratio(text),
            "no_speech_prob": confidence.no_speech_prob,
        }

    def _timestamp_rule(self, begin: int) -> Any:
        generation = self._model.generation_config
        generation.no_timestamps_token_id = self._encoder.timestamp_id - 1
        generation.eos_token_id = generation.eos_token_id or self._encoder.eot_id
        return WhisperTimeStampLogitsProcessor(generation, begin_index=begin)


def segments_of(ids: Sequence[int], encoder: LabelEncoder) -> list[dict[str, Any]]:
    """start_s, end_s and text of what stands between two timestamps; a last one that was cut off has no end."""
    found: list[dict[str, Any]] = []
    start: float | None = None
    words: list[int] = []
    for one in ids:
        if one < encoder.timestamp_id:
            words.append(one)
            continue
        time_s = round((one - encoder.timestamp_id) * _TIME_STEP_S, 2)
        if words:
            found.append({"start_s": start, "end_s": time_s, "text": encoder.decode(words)})
        start, words = time_s, []
    if words:
        found.append({"start_s": start, "end_s": None, "text": encoder.decode(words)})
    return found


def compression_ratio(text: str) -> float:
    """Bytes of the text over those of its zlib compression (openai/whisper, utils.py); 0 for no text."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded)) if encoded else 0.0
