"""Checkpoints: what trains, its optimiser states and the step. Written atomically, readable with any number of workers.

checkpoints/step-00000100/trainable.safetensors    float32 parameters by their name in the student
                          optimizer.safetensors    Adam's moments by `<name>.<moment>`
                          state.json               step, hashes; written last: without it there is no checkpoint
"""

import json
import re
from dataclasses import asdict, dataclass

from safetensors.torch import load, save
from torch import Tensor

from raykd import storage
from raykd.errors import UserError

TRAINABLE = "trainable.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class CheckpointState:
    """Where training stands, and what it was built on."""

    step: int
    """Global batches trained on."""
    frozen_hash: str
    """Of the student's parameters that do not train."""
    teacher_hash: str
    corpus_key: str


def write_checkpoint(folder: str, state: CheckpointState, trainable: dict[str, Tensor], moments: dict[str, Tensor]) -> str:
    """Write the checkpoint of `state.step` into `folder` and return its path. A failed write leaves no checkpoint behind.

    Raises:
        OSError: the storage is full or not reachable.
    """
    path = path_of(folder, state.step)
    try:
        storage.write_bytes(storage.join(path, TRAINABLE), save(trainable))
        storage.write_bytes(storage.join(path, _OPTIMIZER), save(moments))
        storage.write_text(storage.join(path, _STATE), json.dumps(asdict(state), indent=1))
    except OSError:
        delete_checkpoint(path)
        raise
    return path


def read_state(path: str) -> CheckpointState:
    """The step and hashes of a checkpoint."""
    return CheckpointState(**json.loads(storage.read_bytes(storage.join(path, _STATE))))


def read_trainable(path: str) -> dict[str, Tensor]:
    """Trained parameters by name, float32."""
    return load(storage.read_bytes(storage.join(path, TRAINABLE)))


def read_moments(path: str) -> dict[str, Tensor]:
    """Adam's moments by `<name>.<moment>`, float32."""
    return load(storage.read_bytes(storage.join(path, _OPTIMIZER)))


def list_checkpoints(folder: str) -> list[str]:
    """Paths of the complete checkpoints in a folder, oldest first."""
    names = [name for name in storage.list_dir(folder) if re.fullmatch(r"step-\d{8}", name)]
    paths = [storage.join(folder, name) for name in names]
    return [path for path in paths if storage.exists(storage.join(path, _STATE))]


def latest_checkpoint(folder: str) -> str | None:
    """The newest complete checkpoint."""
    paths = list_checkpoints(folder)
    return paths[-1] if paths else None


def path_of(folder: str, step: int) -> str:
    """Where the checkpoint of a step lies."""
    return storage.join(folder, f"step-{step:08d}")


def step_of(path: str) -> int:
    """The step in a checkpoint's name."""
    return int(path.rstrip("/").rsplit("-", 1)[1])


def delete_checkpoint(path: str) -> None:
    """Remove a checkpoint; its commit mark goes first, so that nobody sees a part of it as whole."""
    mark = storage.join(path, _STATE)
    if storage.exists(mark):
        filesystem, inner = storage.filesystem_of(mark)
        filesystem.delete_file(inner)
    storage.delete_dir(path)


def prune_checkpoints(folder: str, keep: int, protected: set[str]) -> None:
    """Delete all but the newest `keep` checkpoints and the protected ones."""
    paths = list_checkpoints(folder)
    for path in paths[: max(0, len(paths) - keep)]:
        if path not in protected:
            delete_checkpoint(path)


def check_same_run(found: CheckpointState, expected: CheckpointState, path: str) -> None:
    """Refuse to go on from a checkpoint that was trained on other frozen weights, another teacher or another corpus.

    Raises:
        UserError: names what differs.
    """
    for field, what in (
        ("frozen_hash", "the student's frozen weights"),
        ("teacher_hash", "the teacher"),
        ("corpus_key", "the data"),
    ):
        if getattr(found, field) != getattr(expected, field):
            raise UserError(f"{path}: {what} changed since this checkpoint was written; start a new run instead of --resume")
