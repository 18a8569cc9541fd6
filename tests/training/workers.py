"""Training workers as plain processes: what Ray Train starts, without Ray.

A group of one and a group of two live as long as the tests, so that imports and process groups are paid once.
"""

import atexit
import os
import queue
import resource
import socket
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from raykd.data.stream import local_steps
from raykd.training.checkpoint import TRAINABLE, latest_checkpoint
from raykd.training.loop import Record
from raykd.training.worker import TrainingJob, run_worker

_PATIENCE_S = 300


class Group:
    """Workers of one process group, fed with jobs."""

    def __init__(self, world: int, largest_file: int | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = mp.get_context("spawn")
        self._results: Any = context.Queue()
        self._jobs: list[Any] = [context.Queue() for _ in range(world)]
        self._workers = [
            context.Process(target=_serve, args=(rank, world, port, self._jobs[rank], self._results, largest_file), daemon=True)
            for rank in range(world)
        ]
        for worker in self._workers:
            worker.start()

    def run(self, jobs: Sequence[TrainingJob]) -> list[list[Record]]:
        """Rank 0's records of each job; raises RuntimeError with a worker's traceback where one fails."""
        for mine in self._jobs:
            mine.put(list(jobs))
        answers: dict[int, Any] = {}
        while len(answers) < len(self._workers):
            try:
                rank, records, failure = self._results.get(timeout=_PATIENCE_S)
            except queue.Empty:
                failure = f"no answer in {_PATIENCE_S} s"
            if failure:
                self.stop()
                raise RuntimeError(failure)
            answers[rank] = records
        return answers[0]

    def stop(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.kill()
            worker.join()


_groups: dict[int, Group] = {}


def train_in_processes(jobs: Sequence[TrainingJob], world: int, largest_file: int | None = None) -> list[list[Record]]:
    """Run the jobs one after the other with `world` workers; rank 0's records of each job.

    No file can grow beyond `largest_file` bytes, as if the disk were full: that group ends afterwards.
    """
    if largest_file is not None:
        group = Group(world, largest_file)
        try:
            return group.run(jobs)
        finally:
            group.stop()
    if world not in _groups:
        _groups[world] = Group(world)
        atexit.register(_groups[world].stop)
    try:
        return _groups[world].run(jobs)
    except RuntimeError:
        del _groups[world]
        raise


def final_parameters(job: TrainingJob) -> dict[str, torch.Tensor]:
    """What the newest checkpoint of a job holds."""
    path = latest_checkpoint(job.checkpoints)
    assert path is not None
    return load_file(Path(path) / TRAINABLE)


def _serve(rank: int, world: int, port: int, jobs: Any, results: Any, largest_file: int | None) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank)
    )
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    while True:
        wanted = jobs.get()
        try:
            results.put((rank, [_records(job, rank, world) for job in wanted], None))
        except BaseException:
            results.put((rank, None, traceback.format_exc()))
            return


def _records(job: TrainingJob, rank: int, world: int) -> list[Record]:
    records: list[Record] = []
    run_worker(job, rank, world, torch.device("cpu"), local_steps, records.append)
    return records
