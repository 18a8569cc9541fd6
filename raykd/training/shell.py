"""The Ray Train shell: the same worker function on every worker, its records sent to the driver, lost workers replaced."""

import re
import threading
import time
from collections.abc import Callable

from ray import PlacementGroupID, cloudpickle
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from raykd import storage
from raykd.errors import RunError
from raykd.storage import filesystem_of, is_remote
from raykd.training.cluster import Resources
from raykd.training.loop import Record
from raykd.training.mailbox import Mailbox
from raykd.training.on_worker import PLACED, on_worker
from raykd.training.ray_trainer import LeanTrainer
from raykd.training.worker import TrainingJob

_POLL_S = 0.3
_COLLECTIVE_TIMEOUT_S = 3600
_GROUP = "placement_group"
"""File with the id of the group of bundles that the workers stand in."""
_STOPPED_WITHIN_S = 60.0
"""Longest wait for workers that were told to stop."""
_FULL = re.compile("out of memory|low on memory", re.IGNORECASE)
"""What Ray says of a node and PyTorch of a GPU."""


def train_on_cluster(job: TrainingJob, resources: Resources, storage_path: str, on_record: Callable[[Record], None]) -> None:
    """Train on the cluster until the plan is done. `on_record` is called in this thread for each record, in order.

    `storage_path` is where Ray Train keeps its own notes; checkpoints are raykd's (`job.checkpoints`).

    A lost worker restarts the group, which goes on from the newest checkpoint, up to `cluster.max_failures` times.

    Raises:
        RunError: a worker reported that it must stop, or failed too often.
    """
    _remove_left_over(storage_path)
    mailbox = Mailbox()
    trainer = LeanTrainer(
        on_worker,
        train_loop_config={
            "job": cloudpickle.dumps(job),
            "mailbox": mailbox.address,
            "threads": resources.threads_per_worker,
        },
        torch_config=TorchConfig(timeout_s=_COLLECTIVE_TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={"CPU": resources.cpus_per_worker, **_gpu(resources)},
        ),
        run_config=RunConfig(
            name=f"train-{int(time.time() * 1000)}",
            storage_path=storage_path if is_remote(storage_path) else filesystem_of(storage_path)[1],
            failure_config=FailureConfig(max_failures=job.config.cluster.max_failures),
        ),
    )
    outcome: list[BaseException] = []
    thread = threading.Thread(target=_fit, args=(trainer, outcome), daemon=True)
    thread.start()
    try:
        while True:
            finished = not thread.is_alive()
            for record in mailbox.records():
                if record["kind"] == PLACED:
                    storage.write_text(storage.join(storage_path, _GROUP), record["group"])
                else:
                    on_record(record)
            if finished:
                break
            thread.join(_POLL_S)
    except KeyboardInterrupt:  # this process ends, and all of its workers with it
        raise
    except BaseException:
        if mailbox.stop():
            thread.join(_STOPPED_WITHIN_S)
        raise
    if mailbox.stopped:
        raise RunError(mailbox.stopped)
    if outcome:
        raise RunError(_first_cause(outcome[0])) from outcome[0]


def _remove_left_over(storage_path: str) -> None:
    """Remove the placement group of the run's last workers, if it is still there.

    Ray keeps it for as long as the job lives, also when the process that started them was killed, such as a trial of a sweep.
    The run that goes on in its place would wait for the cores it holds for ever.
    """
    note = storage.join(storage_path, _GROUP)
    if not storage.exists(note):
        return
    group = storage.read_bytes(note).decode()
    if placement_group_table().get(group, {}).get("state", "REMOVED") != "REMOVED":
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
    storage.delete_file(note)


def _fit(trainer: LeanTrainer, outcome: list[BaseException]) -> None:
    try:
        trainer.fit()
    except BaseException as error:
        outcome.append(error)


def _gpu(resources: Resources) -> dict[str, float]:
    return {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}


def _first_cause(error: BaseException) -> str:
    """The worker's own error, without the layers that Ray wraps around it, or that its memory was full."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    if _FULL.search(str(error)):
        return (
            "memory was full and a worker was ended; lower train.micro_batch_size (the results stay) or cluster.num_workers "
            "and go on with --resume"
        )
    text = str(error).strip().splitlines()
    return text[-1] if text else type(error).__name__
