"""Training workers as plain processes: what Ray Train starts, without Ray, several jobs one after the other in one group."""

import os
import resource
import socket
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


def train_in_processes(jobs: Sequence[TrainingJob], world: int, largest_file: int | None = None) -> list[list[Record]]:
    """Run the jobs with `world` workers; rank 0's records of each job.

    No file can grow beyond `largest_file` bytes, as if the disk were full.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    results: Any = context.SimpleQueue()
    workers = [
        context.Process(target=_worker, args=(rank, world, port, list(jobs), results, largest_file)) for rank in range(world)
    ]
    for worker in workers:
        worker.start()
    records = results.get()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return records


def final_parameters(job: TrainingJob) -> dict[str, torch.Tensor]:
    """What the newest checkpoint of a job holds."""
    path = latest_checkpoint(job.checkpoints)
    assert path is not None
    return load_file(Path(path) / TRAINABLE)


def _worker(rank: int, world: int, port: int, jobs: list[TrainingJob], results: Any, largest_file: int | None) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank)
    )
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    all_records: list[list[Record]] = []
    for job in jobs:
        records: list[Record] = []
        run_worker(job, rank, world, torch.device("cpu"), local_steps, records.append)
        all_records.append(records)
    if rank == 0:
        results.put(all_records)
    dist.barrier()
    dist.destroy_process_group()
