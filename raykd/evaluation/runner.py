"""Evaluating a model on a split: greedy transcripts from Ray workers or in this process, scored and summarised.

Utterances are cut into batches before they are spread, so the transcripts do not depend on the number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayTaskError

from raykd.config.training import EvaluationConfig
from raykd.data.corpus import Corpus, Index, read_utterances
from raykd.errors import UserError
from raykd.evaluation.recogniser import ModelChoice, Recogniser, Recognition, default_device
from raykd.evaluation.result import Evaluation, scored
from raykd.evaluation.vocabulary import Vocabulary

WORKER_CPUS = 0.05
"""CPUs that a worker reserves. It uses more (its share of the cores), but training workers that run at the same time hold most
of the cluster's CPUs for as long as they live: a worker that asked for a whole one would never be scheduled, and training that
waits for its scores would wait for ever. It is not 0 either: nodes that offer no CPUs (a cluster's head) are left alone."""
_SCHEDULED_WITHIN_S = 900
"""For a worker to begin; what it then takes is its own affair."""
_TELL_EVERY_S = 60
_RETRIES = 3

Progress = Callable[[int, int], None]
"""Called with the number of utterances done and of all utterances."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Which model is evaluated on what, and how."""

    model: ModelChoice
    corpus: Corpus
    """Prepared for models with this one's features."""
    split: str
    """Of the corpus; `all` for every one."""
    config: EvaluationConfig
    max_utterances: int | None = None
    """Only so many, evenly spaced over the split sorted by id."""


def evaluate_model(
    request: EvaluationRequest, *, gpus_per_worker: float = 0.0, share: float = 1.0, progress: Progress | None = None
) -> Evaluation:
    """Evaluate on Ray workers, each with the model loaded once. Ray must be initialised.

    Args:
        request: model, data and how to score.
        gpus_per_worker: GPUs (also a fraction) for each worker; 0: decode on CPUs.
        share: of the cluster's cores and GPUs that may be kept busy.
        progress: told after each batch.

    Raises:
        UserError: the split, model, weights or vocabulary are not there or do not fit, or no worker finds room.
    """
    plan = _Plan.of(request)
    config, batches = request.config, plan.batches
    cluster = ray.cluster_resources()
    cores = share * cluster.get("CPU", 1)
    count = config.workers or int(share * cluster.get("GPU", 1) if gpus_per_worker else cores)
    count = max(1, min(count, len(batches)))
    job = _Job(
        choice=request.model,
        corpus_path=request.corpus.path,
        index=plan.index,
        max_new_tokens=config.max_new_tokens,
        teacher_forced=config.teacher_forced,
        use_gpu=gpus_per_worker > 0,
        threads=max(1, int(cores) // count),
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
    return plan.scored(results)


def evaluate_local(
    request: EvaluationRequest, *, device: torch.device | None = None, progress: Progress | None = None
) -> Evaluation:
    """`evaluate_model` in this process, without Ray. `device` defaults to the GPU if there is one."""
    plan = _Plan.of(request)
    config = request.config
    recogniser = Recogniser(request.model, device or default_device(), config.max_new_tokens)
    results = {}
    for number, positions in enumerate(plan.batches):
        utterances = read_utterances(request.corpus.path, plan.index, positions)
        results[number] = recogniser.recognise(utterances, config.teacher_forced, with_expert_use=True)
        _tell(progress, results, plan.batches)
    return plan.scored(results)


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


@dataclass(frozen=True)
class _Plan:
    """A request with everything that is read before a model is loaded, so that mistakes come first."""

    request: EvaluationRequest
    index: Index
    batches: list[np.ndarray]
    vocabulary: Vocabulary | None

    @classmethod
    def of(cls, request: EvaluationRequest) -> "_Plan":
        config = request.config
        vocabulary = Vocabulary.load(config.vocabulary) if config.vocabulary is not None else None
        index = request.corpus.index(request.split)
        return cls(request, index, plan_batches(index, config.batch_size, request.max_utterances), vocabulary)

    def scored(self, results: dict[int, Recognition]) -> Evaluation:
        return scored(self.index, self.request.split, self.batches, results, self.request.config, self.vocabulary)


@dataclass(frozen=True)
class _Job:
    """What all workers of an evaluation share."""

    choice: ModelChoice
    corpus_path: str
    index: Index
    max_new_tokens: int
    teacher_forced: bool
    use_gpu: bool
    threads: int


@ray.remote(max_retries=_RETRIES)
def _recognise(job: _Job, batches: dict[int, np.ndarray]) -> Iterator[tuple[int, Recognition] | None]:
    """None when it begins, then one worker's batches by number. A task and not an actor: Ray gives the next evaluation's tasks
    the same processes, where torch and transformers are already imported."""
    yield None
    torch.set_num_threads(job.threads)
    recogniser = Recogniser(job.choice, torch.device("cuda" if job.use_gpu else "cpu"), job.max_new_tokens)
    for number, positions in batches.items():
        utterances = read_utterances(job.corpus_path, job.index, positions)
        yield number, recogniser.recognise(utterances, job.teacher_forced, with_expert_use=True)


def _collect(streams: Sequence[Any], batches: Sequence[np.ndarray], progress: Progress | None) -> dict[int, Recognition]:
    """The workers' results as they come."""
    running, begun = list(streams), False
    results: dict[int, Recognition] = {}
    while running:
        ready, _ = ray.wait(running, timeout=_TELL_EVERY_S if begun else _SCHEDULED_WITHIN_S)
        if not ready:
            if not begun:
                raise UserError(
                    f"evaluation: no worker found {WORKER_CPUS} CPUs and its GPU share free in {_SCHEDULED_WITHIN_S} s"
                )
            _tell(progress, results, batches)
            continue
        begun = True
        stream: Any = ready[0]
        try:
            result = ray.get(next(stream))
        except StopIteration:
            running.remove(stream)
            continue
        if result is not None:
            results[result[0]] = result[1]
            _tell(progress, results, batches)
    return results


def _tell(progress: Progress | None, results: dict[int, Recognition], batches: Sequence[np.ndarray]) -> None:
    if progress:
        progress(sum(len(batches[number]) for number in results), sum(map(len, batches)))
