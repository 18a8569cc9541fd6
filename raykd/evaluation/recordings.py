"""Whole recordings on Ray workers: read from a source, transcribed (`long_form`), scored over the whole of each."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from raykd.config.training import EvaluationConfig, LongFormConfig
from raykd.data import rejects
from raykd.data.audio import AudioError
from raykd.data.corpus import Index
from raykd.data.format import SAMPLE_RATE
from raykd.data.row_audio import samples_of
from raykd.data.sources.part import Part
from raykd.data.text import clean
from raykd.errors import UserError
from raykd.evaluation.long_form import LongFormRecogniser, Segment
from raykd.evaluation.recogniser import ModelChoice, Recognition
from raykd.evaluation.result import Evaluation, scored
from raykd.evaluation.runner import WORKER_CPUS
from raykd.evaluation.vocabulary import Vocabulary

Row = dict[str, Any]
"""Of `data.utterances.SCHEMA`."""


@dataclass(frozen=True)
class Transcript:
    """What a model made of a recording, or why it could not."""

    row: Row
    """Without the audio."""
    problem: str | None = None
    duration_s: float = 0.0
    seconds: float = 0.0
    """That it took, reading excluded."""
    segments: tuple[Segment, ...] = ()

    @property
    def text(self) -> str:
        """All that is said."""
        return " ".join(segment.text for segment in self.segments)


def transcripts(
    rows: Iterable[Row],
    choice: ModelChoice,
    config: LongFormConfig,
    batch_size: int,
    *,
    gpus_per_worker: float = 0.0,
    workers: int | None = None,
) -> Iterator[Transcript]:
    """Transcripts of recordings as they are done, from Ray workers with the model loaded once. Ray must be initialised.

    Raises:
        UserError: the model cannot be loaded.
    """
    cluster = ray.cluster_resources()
    count = workers or max(1, int(cluster.get("GPU", 1) / gpus_per_worker) if gpus_per_worker else int(cluster.get("CPU", 1)))
    threads = max(1, int(cluster.get("CPU", 1)) // count)
    made = ray.remote(_Worker).options(num_cpus=WORKER_CPUS, num_gpus=gpus_per_worker, max_restarts=3, max_task_retries=3)
    idle: list[Any] = []
    running: dict[Any, Any] = {}
    started = 0

    def collected() -> Transcript:
        (done,), _ = ray.wait(list(running), num_returns=1)
        idle.append(running.pop(done))
        result = ray.get(done)
        if isinstance(result, UserError):
            raise result
        return result

    for row in rows:
        if not idle and started < count:
            idle.append(made.remote(choice, config, batch_size, gpus_per_worker > 0, threads))
            started += 1
        if not idle:
            yield collected()
        worker = idle.pop()
        running[worker.transcribe.remote(row)] = worker
    while running:
        yield collected()


class _Worker:
    """A recogniser. A mistake of the user's is returned: Ray would bury it in an error of its own."""

    def __init__(self, choice: ModelChoice, config: LongFormConfig, batch_size: int, use_gpu: bool, threads: int) -> None:
        torch.set_num_threads(threads)
        self._failure: UserError | None = None
        try:
            device = torch.device("cuda" if use_gpu else "cpu")
            self._recogniser = LongFormRecogniser(choice, config, batch_size, device)
        except UserError as error:
            self._failure = error

    def transcribe(self, row: Row) -> Transcript | UserError:
        if self._failure:
            return self._failure
        told = {**row, "audio": None}
        if row["problem"]:
            return Transcript(told, row["problem"])
        if row["language"] not in self._recogniser.languages:
            return Transcript(told, rejects.UNKNOWN_LANGUAGE)
        try:
            samples_S = samples_of(row)
            begin = time.perf_counter()
            segments = self._recogniser.segments(samples_S, row["language"], row["id"])
        except AudioError as error:
            return Transcript(told, error.reason)
        except Exception as error:  # a recording that nobody foresaw must not end a job of thousands
            return Transcript(told, f"{rejects.NOT_PROCESSED} ({type(error).__name__})")
        return Transcript(told, None, len(samples_S) / SAMPLE_RATE, time.perf_counter() - begin, tuple(segments))


def recordings_of(parts: Sequence[Part], split: str) -> Iterator[Row]:
    """The rows of a split, and those that are in none."""
    for part in parts:
        yield from (row for row in part.rows() if row["split"] in (None, split))


def evaluate_recordings(
    rows: Iterable[Row],
    choice: ModelChoice,
    config: EvaluationConfig,
    split: str,
    *,
    gpus_per_worker: float = 0.0,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Evaluation, dict[str, str]]:
    """Error rates over whole recordings, and why some were left out, by id.

    Raises:
        UserError: no recording can be used, or the model or vocabulary cannot be loaded.
    """
    vocabulary = Vocabulary.load(config.vocabulary) if config.vocabulary is not None else None
    done: list[Transcript] = []
    left_out: dict[str, str] = {}
    stream = transcripts(
        rows, choice, config.long_form, config.batch_size, gpus_per_worker=gpus_per_worker, workers=config.workers
    )
    for one in stream:
        if one.problem:
            left_out[one.row["id"]] = one.problem
        else:
            done.append(one)
        progress(len(done) + len(left_out))
    if not done:
        reasons = ", ".join(sorted(set(left_out.values()))) or f"it has no rows of split {split}"
        raise UserError(f"--data: no recording of the source can be used ({reasons})")
    done.sort(key=lambda one: one.row["id"])
    index = Index(
        pa.table(
            {
                "id": [one.row["id"] for one in done],
                "language": [one.row["language"] for one in done],
                "text": [clean(one.row["text"]) for one in done],
                "duration_s": [one.duration_s for one in done],
            }
        )
    )
    recognition = Recognition([one.text for one in done], sum(one.seconds for one in done))
    evaluation = scored(index, split, [np.arange(len(done))], {0: recognition}, config, vocabulary)
    evaluation.summary["decoding"] = config.long_form.told
    return evaluation, left_out
