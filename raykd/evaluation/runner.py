"""Evaluating a model on a split: greedy transcripts from Ray workers or in this process, scored and summarised.

Utterances are cut into batches before they are spread, so the transcripts do not depend on the number of workers.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from ray.exceptions import RayTaskError

from raykd import storage
from raykd.config.models import DType
from raykd.config.training import EvaluationConfig
from raykd.data.corpus import Corpus, Index, read_utterances
from raykd.errors import UserError
from raykd.evaluation.recogniser import ModelChoice, Recogniser, default_device
from raykd.evaluation.scoring import score_sentences, summarize

WORKER_CPUS = 0.05
"""CPUs that a worker reserves. It uses more (its share of the cores), but training workers that run at the same time hold most
of the cluster's CPUs for as long as they live: a worker that asked for a whole one would never be scheduled, and training that
waits for its scores would wait for ever. It is not 0 either: nodes that offer no CPUs (a cluster's head) are left alone."""
_FIRST_RESULT_S = 900
_RETRIES = 3

Progress = Callable[[int, int], None]
"""Called with the number of utterances done and of all utterances."""


@dataclass(frozen=True)
class Evaluation:
    """What a model made of a split."""

    rows: pa.Table
    """One row an utterance, sorted by id: id, language, duration_s, reference and hypothesis as they are (`*_normalized`: as
    they were scored), words and their substitutions, deletions and insertions, wer, characters, character_errors."""
    summary: dict[str, Any]
    """Scores and counts (`scoring.summarize`), and `split`, `audio_s`, `rtf` (seconds that encoder and decoding took, added up
    over workers, per second of audio; features excluded) and `decoding`, in words."""

    def worst(self, n: int) -> list[dict[str, Any]]:
        """The rows with the most word errors per reference word; rows without errors are left out."""
        wrong = [row for row in self.rows.to_pylist() if row["wer"] > 0]
        return sorted(wrong, key=lambda row: (-row["wer"], -row["words"], row["id"]))[:n]

    def save_rows(self, path: str) -> None:
        """Write the rows as Parquet."""
        buffer = io.BytesIO()
        pq.write_table(self.rows, buffer)
        storage.write_bytes(path, buffer.getvalue())

    def save_summary(self, path: str) -> None:
        """Write the summary as JSON."""
        storage.write_text(path, json.dumps(self.summary, indent=2, ensure_ascii=False) + "\n")


def evaluate_model(
    model: str,
    corpus: Corpus,
    split: str,
    config: EvaluationConfig,
    *,
    weights: str | None = None,
    revision: str | None = None,
    dtype: DType = "auto",
    max_utterances: int | None = None,
    gpus_per_worker: float = 0.0,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate on Ray workers, each with the model loaded once. Ray must be initialised.

    Args:
        model: local folder in Hugging Face format, or hub id.
        corpus: prepared for models with this one's features.
        split: of the corpus.
        config: batch size, longest transcript, normaliser, number of workers.
        weights: a safetensors file laid over the model, such as a checkpoint's `trainable.safetensors`.
        revision: of the hub id.
        dtype: of the weights while decoding.
        max_utterances: only so many, evenly spaced over the split sorted by id.
        gpus_per_worker: GPUs (also a fraction) for each worker; 0: decode on CPUs.
        progress: told after each batch.

    Raises:
        UserError: the split, model or weights are not there or do not fit, or no worker finds room.
    """
    index = corpus.index(split)
    batches = plan_batches(index, config.batch_size, max_utterances)
    cluster = ray.cluster_resources()
    count = config.workers or int(cluster.get("GPU" if gpus_per_worker else "CPU", 1))
    count = max(1, min(count, len(batches)))
    job = _Job(
        choice=ModelChoice(model, revision, weights, dtype),
        corpus_path=corpus.path,
        index=index,
        max_new_tokens=config.max_new_tokens,
        use_gpu=gpus_per_worker > 0,
        threads=max(1, int(cluster.get("CPU", 1)) // count),
    )
    worker = _recognise.options(num_cpus=WORKER_CPUS, num_gpus=gpus_per_worker, scheduling_strategy="SPREAD")
    shared = ray.put(job)
    # Batches are sorted by length, so that taking turns shares them out evenly.
    streams = [worker.remote(shared, dict(list(enumerate(batches))[number::count])) for number in range(count)]
    try:
        results = _collect(streams, batches, progress)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError) else error from None
    finally:
        for stream in streams:
            ray.cancel(stream)
    return _scored(index, split, batches, results, config)


def evaluate_local(
    model: str,
    corpus: Corpus,
    split: str,
    config: EvaluationConfig,
    *,
    weights: str | None = None,
    revision: str | None = None,
    dtype: DType = "auto",
    max_utterances: int | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """`evaluate_model` in this process, without Ray. `device` defaults to the GPU if there is one."""
    recogniser = Recogniser(ModelChoice(model, revision, weights, dtype), device or default_device(), config.max_new_tokens)
    index = corpus.index(split)
    batches = plan_batches(index, config.batch_size, max_utterances)
    results = {}
    for number, positions in enumerate(batches):
        results[number] = recogniser.recognise(read_utterances(corpus.path, index, positions))
        _tell(progress, results, batches)
    return _scored(index, split, batches, results, config)


def plan_batches(index: Index, batch_size: int, max_utterances: int | None = None) -> list[np.ndarray]:
    """Positions in the index, cut into batches of like duration, so that the rows of a batch end together; longest first, so
    that no worker is left with a long batch at the end.

    Raises:
        UserError: the split is empty.
    """
    if len(index) == 0:
        raise UserError("evaluation: the split has no utterances")
    positions = np.arange(len(index))
    if max_utterances is not None and max_utterances < len(index):
        positions = np.linspace(0, len(index) - 1, max_utterances).round().astype(int)
    longest_first = positions[np.argsort(-np.asarray(index.duration_s)[positions], kind="stable")]
    return [longest_first[begin : begin + batch_size] for begin in range(0, len(longest_first), batch_size)]


_Result = tuple[list[str], float]


@dataclass(frozen=True)
class _Job:
    """What all workers of an evaluation share."""

    choice: ModelChoice
    corpus_path: str
    index: Index
    max_new_tokens: int
    use_gpu: bool
    threads: int


@ray.remote(max_retries=_RETRIES)
def _recognise(job: _Job, batches: dict[int, np.ndarray]) -> Iterator[tuple[int, _Result]]:
    """One worker's batches by number. A task and not an actor: Ray gives the next evaluation's tasks the same processes, where
    torch and transformers are already imported."""
    torch.set_num_threads(job.threads)
    recogniser = Recogniser(job.choice, torch.device("cuda" if job.use_gpu else "cpu"), job.max_new_tokens)
    for number, positions in batches.items():
        yield number, recogniser.recognise(read_utterances(job.corpus_path, job.index, positions))


def _collect(streams: Sequence[Any], batches: Sequence[np.ndarray], progress: Progress | None) -> dict[int, _Result]:
    """The workers' results as they come."""
    running = list(streams)
    results: dict[int, _Result] = {}
    while running:
        ready, _ = ray.wait(running, timeout=None if results else _FIRST_RESULT_S)
        if not ready:
            raise UserError(f"evaluation: no worker found {WORKER_CPUS} CPUs and its GPU share free in {_FIRST_RESULT_S} s")
        stream: Any = ready[0]
        try:
            number, result = ray.get(next(stream))
        except StopIteration:
            running.remove(stream)
            continue
        results[number] = result
        _tell(progress, results, batches)
    return results


def _tell(progress: Progress | None, results: dict[int, _Result], batches: Sequence[np.ndarray]) -> None:
    if progress:
        progress(sum(len(batches[number]) for number in results), sum(map(len, batches)))


def _scored(
    index: Index, split: str, batches: Sequence[np.ndarray], results: dict[int, _Result], config: EvaluationConfig
) -> Evaluation:
    hypotheses = {
        int(position): text
        for number, positions in enumerate(batches)
        for position, text in zip(positions, results[number][0], strict=True)
    }
    positions = sorted(hypotheses)
    references = [str(index.texts[position]) for position in positions]
    languages = [str(index.languages[position]) for position in positions]
    texts = [hypotheses[position] for position in positions]
    durations = [float(index.duration_s[position]) for position in positions]
    sentences = score_sentences(references, texts, languages, config.normalizer)
    rows = pa.table(
        {
            "id": pa.array([str(index.ids[position]) for position in positions], pa.string()),
            "language": pa.array(languages, pa.string()),
            "duration_s": pa.array(durations, pa.float64()),
            "reference": pa.array(references, pa.string()),
            "hypothesis": pa.array(texts, pa.string()),
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
    )
    audio_s = sum(durations)
    summary = {
        "split": split,
        **summarize(sentences, config.normalizer),
        "audio_s": audio_s,
        "rtf": sum(seconds for _, seconds in results.values()) / max(audio_s, 1e-9),
        "decoding": f"greedy, at most {config.max_new_tokens} new tokens",
    }
    return Evaluation(rows, summary)
