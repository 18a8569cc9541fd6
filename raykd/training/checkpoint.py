"""Checkpoints: what trains, its optimiser states and the step. Written atomically, readable with any number of workers.

checkpoints/step-00000100/trainable.safetensors    float32 parameters by their name in the student
                          optimizer.safetensors    Adam's moments by `<name>.<moment>`
                          parts.safetensors        states of the method's parts, where they have any
                          state.json               step, totals, hashes, and size and SHA-256 of the other files; written
                                                   last: without it there is no checkpoint
                          damaged.txt              why the checkpoint is passed over, where it was found damaged
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from raykd import storage
from raykd.errors import UserError

TRAINABLE = "trainable.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_PARTS = "parts.safetensors"
_STATE = "state.json"
_DAMAGED = "damaged.txt"


@dataclass(frozen=True)
class CheckpointState:
    """Where training stands, and what it was built on."""

    step: int
    """Global batches trained on."""
    frozen_hash: str
    """Of the student's parameters that do not train."""
    teacher_hash: str
    """Of the weights of all that teaches."""
    corpus_key: str
    parts_hash: str = ""
    """Of the files with parts of the user's own."""
    updates: int | None = None
    """Updates made: fewer than steps where gradients were not finite. None: as many (checkpoints of older versions)."""
    totals: dict[str, float] = field(default_factory=dict)
    """Over all steps so far: rows, tokens, seconds."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Size and SHA-256 of the files beside this one."""


@dataclass(frozen=True)
class Tensors:
    """All tensors of a checkpoint, float32 and whole."""

    trainable: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    parts: Mapping[str, Tensor] = field(default_factory=dict)


def write_checkpoint(folder: str, state: CheckpointState, tensors: Tensors) -> str:
    """Write the checkpoint of `state.step` into `folder` and return its path. A failed write leaves no checkpoint behind.

    Raises:
        OSError: the storage is full or not reachable.
    """
    path = path_of(folder, state.step)
    if storage.exists(storage.join(path, _DAMAGED)):  # the run came here again: its step is whole from now on
        delete_checkpoint(path)
    contents = {TRAINABLE: tensors.trainable, _OPTIMIZER: tensors.moments, _PARTS: tensors.parts}
    files = {}
    try:
        for name, content in contents.items():
            if content or name != _PARTS:
                data = save({key: tensor.contiguous() for key, tensor in content.items()})
                storage.write_bytes(storage.join(path, name), data)
                files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        storage.write_text(storage.join(path, _STATE), json.dumps(asdict(replace(state, files=files)), indent=1))
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


def read_parts(path: str) -> dict[str, Tensor]:
    """States of the method's parts; empty where they have none."""
    file = storage.join(path, _PARTS)
    return load(storage.read_bytes(file)) if storage.exists(file) else {}


def newest_good(folder: str, say: Callable[[str], None]) -> str | None:
    """The newest checkpoint whose files are what was written. A damaged one stays where it is, is marked, and passed over.

    Raises:
        UserError: there are checkpoints, and every one is damaged, or one cannot be read at the moment.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        wrong = damage(path)
        if wrong is None:
            return path
        say(f"{path} is damaged ({wrong}) and passed over")
        storage.write_text(storage.join(path, _DAMAGED), wrong + "\n")
    if paths or _damaged(folder):
        raise UserError(
            f"{folder}: every checkpoint in it is damaged; put good files back and delete {_DAMAGED}, or start a new run"
        )
    return None


def damage(path: str) -> str | None:
    """What is wrong with a checkpoint's files; None when they are good.

    A checkpoint of an older version, which has no hashes, is good when its files can be read.

    Raises:
        UserError: a file is there and the storage does not give it, which says nothing of what is in it.
    """
    try:
        state = read_state(path)
        for name, expected in state.files.items():
            data = storage.read_bytes(storage.join(path, name))
            if len(data) != expected["bytes"]:
                return f"{name} has {len(data)} bytes instead of {expected['bytes']}"
            if hashlib.sha256(data).hexdigest() != expected["sha256"]:
                return f"{name} is not what was written"
        if not state.files:
            read_trainable(path), read_moments(path)
    except FileNotFoundError as error:
        return f"{str(error.filename or error).rsplit('/', 1)[-1]} is not there"
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); mend that, or delete the checkpoint, and go on with --resume"
        ) from None
    except Exception as error:  # whatever a reader makes of bytes that are no such file
        return f"{type(error).__name__}: {error}"
    return None


def _damaged(folder: str) -> bool:
    return any(storage.exists(storage.join(folder, name, _DAMAGED)) for name in storage.list_dir(folder))


def list_checkpoints(folder: str) -> list[str]:
    """Paths of the complete checkpoints in a folder, oldest first, without those that were found damaged."""
    names = [name for name in storage.list_dir(folder) if re.fullmatch(r"step-\d{8}", name)]
    paths = [storage.join(folder, name) for name in names]
    whole = (path for path in paths if storage.exists(storage.join(path, _STATE)))
    return [path for path in whole if not storage.exists(storage.join(path, _DAMAGED))]


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
    storage.delete_file(storage.join(path, _STATE))
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
    for name, what in (
        ("frozen_hash", "the student's frozen weights"),
        ("teacher_hash", "the teacher"),
        ("parts_hash", "a file of --parts"),
        ("corpus_key", "the data"),
    ):
        if getattr(found, name) != getattr(expected, name):
            raise UserError(f"{path}: {what} changed since this checkpoint was written; start a new run instead of --resume")
