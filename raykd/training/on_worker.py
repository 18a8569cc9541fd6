"""What Ray Train runs on each worker.

Ray Train's controller loads this module too, and every import of its own would be waited for before the workers are started:
what trains is imported, and the job unpacked, on the workers alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raykd.training.mailbox import Sender


PLACED = "placed"
"""Kind of the record that says which placement group the workers stand in."""


def on_worker(settings: dict[str, Any]) -> None:
    """Train until the plan is done, or the driver wants it to stop. `settings`: the pickled job, the mailbox's address, and the
    threads to compute with.
    """
    import ray.train
    import ray.util
    import torch
    from ray import cloudpickle

    from raykd.training.mailbox import Sender, StoppedError

    torch.set_num_threads(settings["threads"])
    sender = Sender(settings["mailbox"])
    if sender.stopped():
        return
    context = ray.train.get_context()
    group = ray.util.get_current_placement_group()
    if group is not None and context.get_world_rank() == 0:
        sender.send({"kind": PLACED, "group": group.id.hex()})
    try:
        _train(cloudpickle.loads(settings["job"]), context.get_world_rank(), context.get_world_size(), sender)
    except StoppedError:
        if context.get_world_size() > 1:
            raise  # the others send nothing and wait for this one: Ray ends them with it, and what it starts anew ends at once


def _train(job: Any, rank: int, world: int, sender: "Sender") -> None:
    import ray.train.torch

    from raykd.data.stream import stream_steps
    from raykd.errors import UserError
    from raykd.training.worker import run_worker

    try:
        run_worker(job, rank, world, ray.train.torch.get_device(), stream_steps, sender.send)
    except UserError as error:
        # Perhaps on this worker alone (a folder that its node does not have); the others only notice when it is gone.
        sender.send({"kind": "stopped", "reason": str(error)})
        raise
    finally:
        sender.flush()
