"""A teacher's work on a corpus as a Ray Data stage: batches of utterances on any number of actors, each of which stores what it
made itself. What was stored stays: a stage that is run again is given only what is left.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ray
import torch
from ray.data import ActorPoolStrategy

from raykd.data.context import ray_data_settings
from raykd.data.prepare import tables_of
from raykd.errors import UserError

_CPUS = 0.05
"""That an actor reserves. It uses its share of the cores, and is not kept waiting by what holds them (`evaluation.runner`)."""
_BLOCKS_PER_ACTOR = 64

Item = dict[str, Any]
"""One batch: plain numbers, names and lists of them."""
Progress = Callable[[int], None]
"""Called with the rows done so far."""


class Job(Protocol):
    """What every actor gets. Picklable."""

    def start(self, device: torch.device) -> Callable[[Item], int]:
        """Load the teacher. What is returned does a batch, stores what it made and returns the number of rows."""
        ...


def run_stage(job: Job, items: Sequence[Item], *, gpus: float, workers: int | None, progress: Progress) -> None:
    """Do all items. Ray must be initialised. An actor that is lost is replaced, and its item done again.

    Args:
        job: what to do.
        items: the batches, the longest first.
        gpus: of one actor; 0: CPUs.
        workers: actors; None: one a GPU, or one a core up to two.
        progress: told after each batch.

    Raises:
        UserError: as the job raises it.
    """
    if not items:
        return
    cluster = ray.cluster_resources()
    cores = int(cluster.get("CPU", 1))
    count = workers or (int(cluster.get("GPU", 1) / gpus) if gpus else min(2, cores))
    count = max(1, min(count, len(items)))
    with ray_data_settings():
        blocks = min(len(items), count * _BLOCKS_PER_ACTOR)
        dataset = ray.data.from_items(list(items), override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(job, gpus > 0, max(1, cores // count)),
            compute=ActorPoolStrategy(size=count),
            batch_size=1,
            num_cpus=_CPUS,
            num_gpus=gpus,
        )
    done = 0
    for table in tables_of(dataset):
        failures = table.column(_FAILURE).drop_null()
        if len(failures):
            raise UserError(failures[0].as_py())
        done += sum(table.column(_ROWS).to_pylist())
        progress(done)


_ROWS, _FAILURE = "rows", "failure"


class _Actor:
    """Does a job's items, one at a time. A mistake of the user's is returned as a row: Ray Data would bury an exception."""

    def __init__(self, job: Job, use_gpu: bool, threads: int) -> None:
        torch.set_num_threads(threads)
        self._failure: str | None = None
        try:
            self._do = job.start(torch.device("cuda" if use_gpu else "cpu"))
        except UserError as error:
            self._failure = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        rows, failure = 0, self._failure
        if failure is None:
            try:
                rows = self._do({name: values[0] for name, values in batch.items()})
            except UserError as error:
                failure = str(error)
        return {_ROWS: [rows], _FAILURE: [failure]}
