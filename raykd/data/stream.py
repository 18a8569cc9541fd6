"""Batches of a run's steps, in order, for one worker: over Ray Data (`stream_steps`) or in this process (`local_steps`).

What is read and what becomes of it says a `Reading`, made by `speech_reading` or `text_reading`.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from raykd.data.batches import BatchReader, Collate, RowChange, SpeechCollate, TextCollate
from raykd.data.context import ray_data_settings
from raykd.data.corpus import Corpus
from raykd.data.fetch import FetchPlan, fetch_steps
from raykd.data.format import SpeechFormat
from raykd.data.order import EpochOrder
from raykd.data.tasks import dataset_of_tasks
from raykd.data.token_map import TokenMap
from raykd.storage import is_remote

_CPUS_PER_TASK = 0.25
"""Reading is waiting for disk or network, and training workers may hold most of the CPUs."""
_TASKS_AT_ONCE = 2
_TASKS_AT_ONCE_REMOTE = 8
"""A read from remote storage takes a hundred times longer than one from disk, nearly all of it waiting."""
_TASK_BYTES = 16 << 20
_ID_BYTES = 20
_SEGMENT_TASKS = 8
"""Tasks of one Ray Data execution. Two segments are in memory: one in use, one being read ahead."""


@dataclass
class StepBatches:
    """One worker's part of one global batch."""

    step: int
    """From 0."""
    epoch: int
    micro: list[Any]
    """`Batch` or `TextBatch`, as many for every worker at every step; one without ids only keeps workers in step."""
    global_tokens: int
    """Positions with loss over all workers and micro-batches."""
    global_utterances: int
    """Utterances, or segments of text."""


@dataclass(frozen=True)
class Reading:
    """What a worker reads at each step, and how its rows become batches."""

    plan: FetchPlan
    collate: Collate
    row_bytes: float
    """Bytes of a row in memory, about."""
    n_frames: NDArray[np.int32] | None = None
    """Mel frames of each row of the index; None: it is text."""
    pinned: bool = False
    """Whether batches are put into page-locked memory, as GPUs like it."""

    def assemble(self, steps: range, rows: Iterator[pa.RecordBatch]) -> Iterator[StepBatches]:
        """Batches of the steps from the rows of `plan.read`, one after the other."""
        order = self.plan.order
        for step in steps:
            epoch = order.epoch_of(step)
            micro = [self._batch(len(slot), epoch, rows) for slot in self.plan.slots(step)]
            if self.n_frames is not None:
                for batch in micro:
                    batch.longest_frames = int(self.n_frames[order.global_batch(step)].max())
            yield StepBatches(
                step=step,
                epoch=epoch,
                micro=micro,
                global_tokens=order.global_tokens(step),
                global_utterances=order.global_utterances(step),
            )

    def _batch(self, wanted: int, epoch: int, rows: Iterator[pa.RecordBatch]) -> Any:
        if wanted == 0:
            return self.collate.placeholder(next(rows))
        batch = self.collate.batch(list(islice(rows, wanted)), epoch)
        return batch.pinned() if self.pinned else batch


def speech_reading(
    corpus: Corpus,
    split: str,
    order: EpochOrder,
    rank: int,
    world: int,
    micro_batches: int,
    speech_format: SpeechFormat,
    seed: int,
    changes: Sequence[RowChange] = (),
    student_changes: Sequence[RowChange] = (),
    reader: BatchReader | None = None,
    tokens: TokenMap | None = None,
) -> Reading:
    """Utterances to `Batch`es.

    Args:
        corpus: the prepared corpus; on storage that all nodes see.
        split: split of the corpus that `order` was made for.
        order: which rows make up each step.
        rank: this worker's number, below `world`.
        world: number of workers.
        micro_batches: parts that a worker cuts its share of a global batch into (gradient accumulation).
        speech_format: for the window that mels are padded to.
        seed: the run's.
        changes: what is done to each utterance, such as SpecAugment.
        student_changes: what is done to it for the student's ears alone, after that.
        reader: what is read beside the utterances.
        tokens: to the ids of the models, where they are not the corpus's.
    """
    plan = FetchPlan.of(corpus, split, order, rank, world, micro_batches)
    pad_id = corpus.pad_id if tokens is None else tokens.pad_id
    collate = SpeechCollate(speech_format.window_frames, pad_id, tuple(changes), seed, tuple(student_changes), reader, tokens)
    n_frames = corpus.index(split).n_frames
    return Reading(plan, collate, 2 * speech_format.n_mels * float(n_frames.mean()), n_frames)


def text_reading(
    corpus: Corpus,
    split: str,
    order: EpochOrder,
    rank: int,
    world: int,
    micro_batches: int,
    mask_share: float | None,
    seed: int,
) -> Reading:
    """Segments of a text corpus to `TextBatch`es; arguments as `speech_reading`.

    `mask_share` is that of `masking.masked_counts`, which made the `loss_tokens` of `order`. Masks follow from
    (seed, epoch, id).
    """
    plan = FetchPlan.of(corpus, split, order, rank, world, micro_batches)
    collate = TextCollate(corpus.pad_id, mask_share, seed)
    return Reading(plan, collate, row_bytes=_ID_BYTES + 4 * float(corpus.index(split).n_tokens.mean()))


def local_steps(reading: Reading, steps: range) -> Generator[StepBatches, None, None]:
    """The same batches as `stream_steps`, read in this process when they are asked for."""
    yield from reading.assemble(steps, (row for step in steps for row in reading.plan.read(range(step, step + 1))))


def stream_steps(reading: Reading, steps: range) -> Generator[StepBatches, None, None]:
    """A worker's batches of consecutive steps, read ahead by Ray Data and put together by a thread.

    Steps are counted from the start of training; a resumed run begins where it stopped. Closing the iterator ends the reading;
    it waits for the segment that is being read. Ray must be initialised.
    """
    rows_per_step = len(reading.plan.positions(0))
    steps_per_task = max(1, int(_TASK_BYTES / (reading.row_bytes * rows_per_step)))
    with closing(_stream_rows(reading.plan, steps, steps_per_task)) as rows:
        yield from _ahead(reading.assemble(steps, rows))


def _stream_rows(plan: FetchPlan, steps: range, steps_per_task: int) -> Generator[pa.RecordBatch, None, None]:
    """All rows of the steps, one record batch each.

    The first steps, as many as one task would read, are read here: Ray Data's own start takes seconds. All others are read in
    segments, each a Ray Data execution that runs to its end while the segment before it is in use. A single execution over all
    steps would be held back by its consumer most of the time, and Ray Data's scheduler then turns in a busy loop that takes
    half a core from training.
    """
    here, rest = steps[:steps_per_task], steps[steps_per_task:]
    starts = range(rest.start, rest.stop, steps_per_task * _SEGMENT_TASKS)
    segments = [range(start, stop) for start, stop in pairwise([*starts, rest.stop])]
    plan_ref = [ray.put(plan)] if segments else []
    at_once = _TASKS_AT_ONCE_REMOTE if is_remote(plan.corpus_path) else _TASKS_AT_ONCE
    upcoming = iter([*segments, range(0)])
    with ThreadPoolExecutor(1, "raykd-segments") as thread:
        following = thread.submit(_read_segment, plan_ref, next(upcoming), steps_per_task, at_once)
        for step in here:
            yield from plan.read(range(step, step + 1))
        for segment in upcoming:
            blocks = following.result()
            following = thread.submit(_read_segment, plan_ref, segment, steps_per_task, at_once)
            while blocks:
                for batch in ray.get(blocks.popleft()).to_batches():
                    for number in range(batch.num_rows):
                        yield batch.slice(number, 1)


def _read_segment(
    plan_ref: "list[ray.ObjectRef[FetchPlan]]", steps: range, steps_per_task: int, at_once: int
) -> "deque[ray.ObjectRef[pa.Table]]":
    """The rows of some steps as tables in the object store."""
    if not steps:
        return deque()
    starts = range(steps.start, steps.stop, steps_per_task)
    # In its list, the reference is passed on as it is and not replaced by the plan.
    reads = [partial(fetch_steps, plan_ref, start, stop) for start, stop in pairwise([*starts, steps.stop])]
    with ray_data_settings():
        dataset = dataset_of_tasks(reads, num_cpus=_CPUS_PER_TASK, concurrency=min(at_once, len(reads)))
    return deque(dataset.to_arrow_refs())


def _ahead(steps: Iterator[StepBatches]) -> Iterator[StepBatches]:
    """The same steps, each put together by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1, "raykd-batches") as thread:
        following = thread.submit(next, steps, None)
        while (current := following.result()) is not None:
            following = thread.submit(next, steps, None)
            yield current
