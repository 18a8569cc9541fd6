"""The part of the stream that runs in Ray tasks: the rows of some steps, read from the shards.

Imports no torch, so that tasks start fast.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from raykd.data.corpus import Corpus, read_rows
from raykd.data.order import EpochOrder, Positions, slot_positions


@dataclass(frozen=True)
class FetchPlan:
    """What a worker reads at each step. Sent once to each node, so it holds a few numbers a row."""

    corpus_path: str
    rows_per_batch: int
    shard_names: Sequence[str]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    order: EpochOrder
    rank: int
    world: int
    micro_batches: int

    @classmethod
    def of(cls, corpus: Corpus, split: str, order: EpochOrder, rank: int, world: int, micro_batches: int) -> "FetchPlan":
        """The plan of worker `rank` of `world`, for the split that `order` was made for."""
        index = corpus.index(split)
        place = index.shard_names, index.shard, index.row
        return cls(corpus.path, corpus.rows_per_batch, *place, order, rank, world, micro_batches)

    def slots(self, step: int) -> list[Positions]:
        """Positions in the index for each of this worker's micro-batches; some may be empty (`order.slot_positions`)."""
        return slot_positions(self.order.global_batch(step), self.rank, self.world, self.micro_batches)

    def positions(self, step: int) -> Positions:
        """All rows that this worker reads at a step, slot after slot; an empty slot gets the step's first row."""
        stand_in = self.order.global_batch(step)[:1]
        return np.concatenate([slot if len(slot) else stand_in for slot in self.slots(step)])

    def read(self, steps: range) -> list[pa.RecordBatch]:
        """The rows of consecutive steps, one record batch each."""
        positions = np.concatenate([self.positions(step) for step in steps])
        place = self.shard[positions], self.row[positions]
        return read_rows(self.corpus_path, self.shard_names, *place, self.rows_per_batch)


def fetch_steps(plan_ref: "list[ray.ObjectRef[FetchPlan]]", first: int, last: int) -> Iterator[pa.Table]:
    """The rows of the steps from `first` up to `last` as one table, in one piece: Ray passes thousands of chunks on slowly."""
    yield pa.Table.from_batches(_plan(plan_ref[0]).read(range(first, last))).combine_chunks()


@lru_cache(maxsize=1)
def _plan(plan_ref: "ray.ObjectRef[FetchPlan]") -> FetchPlan:
    """The plan, taken from the object store once a process, so that the order of the epoch is drawn once a process too."""
    return ray.get(plan_ref)
