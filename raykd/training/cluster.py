"""Connecting to Ray, quietly, and sharing a cluster's CPUs and GPUs between training, data and evaluation."""

import atexit
import logging
import math
import os
import socket
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import ray
from ray.util import get_current_placement_group, placement_group_table

from raykd.config.training import ClusterConfig
from raykd.errors import UserError
from raykd.parts.deepspeed import name_accelerator

_LOOPBACK = "127.0.0.1"
"""Where a Ray of our own listens: nobody else needs it, and whoever reaches it can run code."""
_EVALUATION_GPU_SHARE = 0.1
"""Share of each GPU left to evaluation tasks, which run beside training on the same GPUs."""


@dataclass(frozen=True)
class Resources:
    """What one run takes of the cluster."""

    workers: int
    gpus_per_worker: float
    cpus_per_worker: float
    threads_per_worker: int
    share: float
    """Of the cluster's cores and GPUs, for evaluation: `cluster.share`, or all."""
    evaluation_gpus: float
    """GPU share of one evaluation worker."""
    nodes: int


def connect(verbose: bool = False) -> None:
    """Join the cluster named by RAY_ADDRESS (inside a Ray job it is set), or start Ray on this machine.

    Unless `verbose`, worker output stays in Ray's own log files.

    Raises:
        UserError: RAY_ADDRESS names a cluster that does not answer.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes this machine away with a notice
    level = logging.INFO if verbose else logging.ERROR
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its core writes to the terminal, past logging
        name_accelerator()
        warnings.filterwarnings("ignore", module=r"ray\..*")
        for name in ("ray.data", "ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what they log as errors is raised as well
    _require_answer(address)
    leave_last_words()
    try:
        with nullcontext() if verbose else _no_standard_error():
            ray.init(
                address=address or "local",
                log_to_driver=verbose,
                logging_level=level,
                include_dashboard=None if address else False,
                _node_ip_address=None if address else _LOOPBACK,
            )
    except Exception as error:  # Ray raises plain ones, such as for a node that did not start in time
        raise UserError(_why_not(address, " ".join(str(error).split())[:300])) from None
    _quiet_data(verbose)


def leave_last_words() -> None:
    """Ray's core ends this very process, past Python, when its node or its head process is gone: then somebody else says so."""
    words = (
        "raykd: the command was killed, by Ray because one of its own processes was gone, or from outside; what was done is "
        "kept: training goes on with --resume, anything else with the same command"
    )
    heir = subprocess.Popen(["sh", "-c", f'read done || echo "{words}" >&2'], stdin=subprocess.PIPE)
    atexit.register(heir.communicate, b"\n")


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Ray's core says there, at each start, that it was told to be quiet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _why_not(address: str | None, reason: str) -> str:
    """Why there is no Ray, with what to do."""
    if "AF_UNIX" in reason or "path length" in reason:
        folder = next((f"{name}={os.environ[name]}" for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "TMPDIR")
        return f"{folder}: too long for the sockets that Ray makes there; set RAY_TMPDIR to a short path such as /tmp"
    if address:
        return (
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({reason}); give HOST:PORT or ray://HOST:PORT of one, or "
            "unset RAY_ADDRESS"
        )
    return f"Ray cannot be started on this machine ({reason}); look at its memory, its disk and the processes that run"


def _require_answer(address: str | None) -> None:
    """Ask a plain host:port first: Ray itself tries a dead address for minutes.

    Raises:
        UserError: nobody listens there.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({reason}); start one or unset RAY_ADDRESS"
        ) from None


def _quiet_data(verbose: bool) -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = verbose
    context.enable_operator_progress_bars = verbose
    context.print_on_execution_start = False


def plan_resources(config: ClusterConfig) -> Resources:
    """How many workers train and what each takes, from the config and what the cluster has.

    CPU workers reserve a fraction of their cores: Ray Data's tasks need the rest, and two workers that reserved both
    cores of a laptop would wait for batches for ever. A run with a `share` plans with that of the whole cluster, and with less
    than a GPU has one worker on a part of it. Without one, inside a Ray Tune trial, only what no placement group holds is
    planned with, at least one CPU or GPU: Ray Train's workers stand outside of the trial's bundles, so a trial should ask for
    little (`{"CPU": 0.1}`). Of two trials that plan at once the second's workers wait for the first's.

    Raises:
        UserError: more workers asked for than the cluster can hold.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    cpus, gpus = _within_reach(config.share)
    use_gpu = gpus > 0 if config.use_gpu is None else config.use_gpu
    if use_gpu and gpus == 0:
        raise UserError("cluster.use_gpu: the Ray cluster has no GPU; leave the key out to train on CPUs")
    available = gpus if use_gpu else cpus
    workers = config.num_workers or max(1, int(gpus if use_gpu else min(2, cpus)))
    if workers > max(1, available):
        kind = "GPUs" if use_gpu else "CPUs"
        raise UserError(
            f"cluster.num_workers: {workers} workers do not fit on {int(available)} {kind}; give at most {int(available)}"
        )
    gpu = _part_of_a_gpu(gpus / workers) if use_gpu else 0.0
    cores = config.cpus_per_worker or (1.0 if use_gpu else max(0.1, round(0.6 * cpus / workers, 2)))
    return Resources(
        workers=workers,
        gpus_per_worker=round(gpu * (1.0 - _EVALUATION_GPU_SHARE), 4),
        cpus_per_worker=cores,
        threads_per_worker=max(1, int(cpus / workers)) if not use_gpu else max(1, int(cores)),
        share=config.share or 1.0,
        evaluation_gpus=round(gpu * _EVALUATION_GPU_SHARE, 4),
        nodes=len(nodes),
    )


def _part_of_a_gpu(gpus: float) -> float:
    """What one worker takes of a GPU, with so much for each. It must lie on one: of three trials on two GPUs, with two thirds
    each, one would wait for the others to end."""
    return 1.0 / max(1, math.ceil(1.0 / gpus - 1e-6))


def _within_reach(share: float | None) -> tuple[float, float]:
    """CPUs and GPUs that a run may plan with."""
    total = ray.cluster_resources()
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    if share is not None:
        return cpus * share, gpus * share
    if get_current_placement_group():
        held = _held_by_groups()
        return max(min(1.0, cpus), cpus - held["CPU"]), max(min(1.0, gpus), gpus - held["GPU"])
    return cpus, gpus


def _held_by_groups() -> Counter[str]:
    """CPUs and GPUs that placement groups have reserved: trials, and the workers of running trainers."""
    groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    held: Counter[str] = Counter()
    for bundle in (bundle for group in groups for bundle in group["bundles"].values()):
        held.update(bundle)
    return held
