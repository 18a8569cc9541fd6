"""Batches of a run's steps, in order, for one worker: over Ray Data (`stream_steps`) or in this process (`local_steps`)."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from raykd.config.data import SpecAugment
from raykd.data.augment import spec_augment
from raykd.data.batches import Batch, collate, placeholder
from raykd.data.context import ray_data_settings
from raykd.data.corpus import Corpus, Utterance, utterance_of
from raykd.data.fetch import FetchPlan, fetch_steps
from raykd.data.format import SpeechFormat
from raykd.data.order import EpochOrder
from raykd.storage import is_remote

_CPUS_PER_TASK = 0.25
"""Reading is waiting for disk or network, and training workers may hold most of the CPUs."""
_TASKS_AT_ONCE = 2
_TASKS_AT_ONCE_REMOTE = 8
"""A read from remote storage takes a hundred times longer than one from disk, nearly all of it waiting."""
_ROWS_PER_TASK = 256
_MOST_TASKS = 4000
"""Ray Data makes all tasks of a dataset when it starts."""
_BLOCK_BYTES = 16 << 20
_STREAM_BYTES = 256 << 20
"""Most object store memory of one worker's stream: what is read ahead of training."""


@dataclass
class StepBatches:
    """One worker's part of one global batch."""

    step: int
    """From 0."""
    epoch: int
    micro: list[Batch]
    """As many for every worker at every step; a batch without ids only keeps workers in step (`batches.placeholder`)."""
    global_tokens: int
    """Valid label positions over all workers and micro-batches."""
    global_utterances: int


@dataclass(frozen=True)
class _Assembly:
    """How a worker's rows become its batches."""

    plan: FetchPlan
    window_frames: int
    pad_id: int
    augment: SpecAugment | None
    seed: int

    def steps(self, steps: range, utterances: Iterator[Utterance]) -> Iterator[StepBatches]:
        """Batches of the steps from the rows of `plan.read`, one after the other."""
        order = self.plan.order
        for step in steps:
            yield StepBatches(
                step=step,
                epoch=order.epoch_of(step),
                micro=[self._batch(len(slot), order.epoch_of(step), utterances) for slot in self.plan.slots(step)],
                global_tokens=order.global_tokens(step),
                global_utterances=len(order.global_batch(step)),
            )

    def _batch(self, rows: int, epoch: int, utterances: Iterator[Utterance]) -> Batch:
        if rows == 0:
            return placeholder(next(utterances), self.window_frames, self.pad_id)
        taken = [next(utterances) for _ in range(rows)]
        return collate(taken, self.window_frames, self.pad_id, partial(self._mask, epoch) if self.augment else None)

    def _mask(self, epoch: int, window_MF: Any, utterance: Utterance) -> None:
        assert self.augment is not None
        spec_augment(window_MF, utterance.mel.shape[1], self.augment, (self.seed, epoch, utterance.id))


def local_steps(
    corpus: Corpus,
    split: str,
    order: EpochOrder,
    steps: range,
    rank: int,
    world: int,
    micro_batches: int,
    speech_format: SpeechFormat,
    augment: SpecAugment | None,
    seed: int,
) -> Iterator[StepBatches]:
    """The same batches as `stream_steps`, read in this process when they are asked for."""
    plan = FetchPlan.of(corpus.path, corpus.index(split), order, rank, world, micro_batches)
    assembly = _Assembly(plan, speech_format.window_frames, corpus.pad_id, augment, seed)
    return assembly.steps(steps, (utterance_of(row) for step in steps for row in plan.read(step)))


def stream_steps(
    corpus: Corpus,
    split: str,
    order: EpochOrder,
    steps: range,
    rank: int,
    world: int,
    micro_batches: int,
    speech_format: SpeechFormat,
    augment: SpecAugment | None,
    seed: int,
) -> Iterator[StepBatches]:
    """This worker's batches of consecutive steps, read ahead by Ray tasks and put together by a thread.

    Args:
        corpus: the prepared corpus; on storage that all nodes see.
        split: split of the corpus that `order` was made for.
        order: which utterances make up each step.
        steps: consecutive steps, counted from the start of training; a resumed run begins where it stopped.
        rank: this worker's number, below `world`.
        world: number of workers.
        micro_batches: parts that a worker cuts its share of a global batch into (gradient accumulation).
        speech_format: for the window that mels are padded to.
        augment: SpecAugment; None: off. Masks follow from (seed, epoch, id).
        seed: the run's.

    Closing the iterator ends the reading. Ray must be initialised.
    """
    plan = FetchPlan.of(corpus.path, corpus.index(split), order, rank, world, micro_batches)
    assembly = _Assembly(plan, speech_format.window_frames, corpus.pad_id, augment, seed)
    with closing(_stream_rows(plan, steps)) as rows:
        yield from _ahead(assembly.steps(steps, rows))


def _stream_rows(plan: FetchPlan, steps: range) -> Generator[Utterance, None, None]:
    if not steps:
        return
    with ray_data_settings(_STREAM_BYTES, _BLOCK_BYTES):
        source = _Steps(plan, steps)
        dataset = ray.data.read_datasource(
            source,
            num_cpus=_CPUS_PER_TASK,
            concurrency=min(_TASKS_AT_ONCE_REMOTE if is_remote(plan.corpus_path) else _TASKS_AT_ONCE, source.tasks),
            override_num_blocks=source.tasks,
        )
    blocks = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
    try:
        for block in blocks:
            for row in block.to_batches(max_chunksize=1):
                yield utterance_of(row)
    finally:
        blocks.close()


class _Steps(Datasource):
    """A dataset of the rows of consecutive steps, in their order."""

    def __init__(self, plan: FetchPlan, steps: range) -> None:
        super().__init__()
        self._steps = steps
        self._rows_per_step = -(-plan.order.batch_size // plan.world)
        self._steps_per_task = max(1, _ROWS_PER_TASK // self._rows_per_step, -(-len(steps) // _MOST_TASKS))
        # In a list, the reference is passed on as it is and not replaced by the plan.
        self._plan_ref = [ray.put(plan)]

    @property
    def tasks(self) -> int:
        return -(-len(self._steps) // self._steps_per_task)

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        tasks = []
        for first in range(self._steps.start, self._steps.stop, self._steps_per_task):
            last = min(first + self._steps_per_task, self._steps.stop)
            metadata = BlockMetadata(
                num_rows=(last - first) * self._rows_per_step, size_bytes=None, input_files=None, exec_stats=None
            )
            read = partial(fetch_steps, self._plan_ref, first, last)
            tasks.append(ReadTask(read, metadata, per_task_row_limit=per_task_row_limit))
        return tasks


def _ahead(steps: Iterator[StepBatches]) -> Iterator[StepBatches]:
    """The same steps, each put together by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1, "raykd-batches") as thread:
        following = thread.submit(next, steps, None)
        while (current := following.result()) is not None:
            following = thread.submit(next, steps, None)
            yield current
