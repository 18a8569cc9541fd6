"""What a model made of a split: its transcripts scored, one row an utterance, and their summary."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raykd import storage
from raykd.config.training import EvaluationConfig
from raykd.data.corpus import Index, write_parquet
from raykd.evaluation.expert_use import ExpertUse
from raykd.evaluation.recogniser import Recognition
from raykd.evaluation.scoring import ScoredSentence, TeacherForced, score_sentences, summarize
from raykd.evaluation.vocabulary import Vocabulary


@dataclass(frozen=True)
class Evaluation:
    """What a model made of a split."""

    rows: pa.Table
    """One row an utterance, sorted by id: id, language, duration_s, reference and hypothesis as they are (`*_normalized`: as
    they were scored), words and their substitutions, deletions and insertions, wer, characters, character_errors. With a
    vocabulary invalid_words, a list; with teacher forcing loss (mean over label_tokens, nats) and teacher_forced, a text."""
    summary: dict[str, Any]
    """Scores and counts (`scoring.summarize`), and `split`, `audio_s`, `rtf` (seconds that encoder and decoding took, added up
    over workers, per second of audio; features excluded) and `decoding`, in words. `rtf` depends on what else the machine did:
    only the factors of `speed.measure_speed` compare models."""

    def worst(self, n: int) -> list[dict[str, Any]]:
        """The rows with the most word errors per reference word; rows without errors are left out."""
        wrong = [row for row in self.rows.to_pylist() if row["wer"] > 0]
        return sorted(wrong, key=lambda row: (-row["wer"], -row["words"], row["id"]))[:n]

    def save_rows(self, path: str) -> None:
        """Write the rows as Parquet."""
        write_parquet(self.rows, path)

    def save_summary(self, path: str) -> None:
        """Write the summary as JSON."""
        storage.write_text(path, json.dumps(self.summary, indent=2, ensure_ascii=False) + "\n")


def scored(
    index: Index,
    split: str,
    batches: Sequence[np.ndarray],
    results: Mapping[int, Recognition],
    config: EvaluationConfig,
    vocabulary: Vocabulary | None,
) -> Evaluation:
    """The evaluation of `batches` of positions in the index, from their results by number of the batch."""
    texts: dict[int, str] = {}
    forced: dict[int, TeacherForced] = {}
    experts: dict[int, ExpertUse] = {}
    for number, batch in enumerate(batches):
        result = results[number]
        texts |= zip(batch.tolist(), result.texts, strict=True)
        if result.teacher_forced is not None:
            forced |= zip(batch.tolist(), result.teacher_forced, strict=True)
        if result.experts is not None:
            experts |= zip(batch.tolist(), result.experts, strict=True)
    positions = sorted(texts)
    sentences = score_sentences(
        references=[str(index.texts[position]) for position in positions],
        hypotheses=[texts[position] for position in positions],
        languages=[str(index.languages[position]) for position in positions],
        choice=config.normalizer,
        vocabulary=vocabulary,
        teacher_forced=[forced[position] for position in positions] if forced else None,
        experts=[experts[position] for position in positions] if experts else None,
    )
    rows = _rows(index, positions, [texts[position] for position in positions], sentences)
    audio_s = sum(rows.column("duration_s").to_pylist())
    summary = {
        "split": split,
        **summarize(sentences, config.normalizer),
        "audio_s": audio_s,
        "rtf": sum(result.seconds for result in results.values()) / max(audio_s, 1e-9),
        "decoding": f"greedy, at most {config.max_new_tokens} new tokens",
    }
    return Evaluation(rows, summary)


def _rows(index: Index, positions: Sequence[int], hypotheses: Sequence[str], sentences: Sequence[ScoredSentence]) -> pa.Table:
    columns = {
        "id": pa.array([str(index.ids[position]) for position in positions], pa.string()),
        "language": pa.array([s.language for s in sentences], pa.string()),
        "duration_s": pa.array([float(index.duration_s[position]) for position in positions], pa.float64()),
        "reference": pa.array([str(index.texts[position]) for position in positions], pa.string()),
        "hypothesis": pa.array(hypotheses, pa.string()),
        "reference_normalized": pa.array([s.reference for s in sentences], pa.string()),
        "hypothesis_normalized": pa.array([s.hypothesis for s in sentences], pa.string()),
        "words": pa.array([s.words.length for s in sentences], pa.int64()),
        "substitutions": pa.array([s.words.substitutions for s in sentences], pa.int64()),
        "deletions": pa.array([s.words.deletions for s in sentences], pa.int64()),
        "insertions": pa.array([s.words.insertions for s in sentences], pa.int64()),
        "wer": pa.array([s.words.rate for s in sentences], pa.float64()),
        "characters": pa.array([s.characters.length for s in sentences], pa.int64()),
        "character_errors": pa.array([s.characters.errors for s in sentences], pa.int64()),
    }
    invalid = [s.invalid_words for s in sentences if s.invalid_words is not None]
    if invalid:
        columns["invalid_words"] = pa.array([list(words) for words in invalid], pa.list_(pa.string()))
    forced = [s.teacher_forced for s in sentences if s.teacher_forced is not None]
    if forced:
        columns["label_tokens"] = pa.array([f.tokens for f in forced], pa.int64())
        columns["loss"] = pa.array([f.loss / max(1, f.tokens) for f in forced], pa.float64())
        columns["teacher_forced"] = pa.array([f.hypothesis for f in forced], pa.string())
    return pa.table(columns)
