"""Which parameters train, and a fingerprint of the others' values."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

CHUNK_ELEMENTS = 1 << 22
"""Elements hashed at a time: 16 MiB of float32, so that hashing a bfloat16 model needs no float32 copy of it."""


def trainable_names(model: nn.Module) -> list[str]:
    """Names of the parameters that train, in model order; tied parameters once, by their first name."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def frozen_names(model: nn.Module) -> list[str]:
    """Names of the parameters that do not train, in model order; tied parameters once, by their first name."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def state_hash(model: nn.Module, names: Iterable[str]) -> str:
    """SHA-256 (hex) over the names, shapes and float32 values of some parameters, in any order, on any device.

    Equal values give equal hashes in whatever floating type they are held. Parameters that DeepSpeed has partitioned hold no
    values: hash before the engine is built.

    Raises:
        KeyError: a name that the model does not have.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    chosen = [(name, parameters[name].detach()) for name in sorted(names)]
    whole = hashlib.sha256()
    # hashlib lets go of the interpreter lock, so threads share the work.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for (name, tensor), digest in zip(chosen, threads.map(_digest, [tensor for _, tensor in chosen]), strict=True):
            whole.update(f"{name} {tuple(tensor.shape)} ".encode() + digest)
    return whole.hexdigest()


def whole_hash(model: nn.Module) -> str:
    """`state_hash` of all parameters."""
    return state_hash(model, [name for name, _ in model.named_parameters()])


def _digest(tensor: Tensor) -> bytes:
    digest = hashlib.sha256()
    for chunk in tensor.contiguous().view(-1).split(CHUNK_ELEMENTS):
        digest.update(memoryview(chunk.to("cpu", torch.float32).numpy()))
    return digest.digest()


def same_parameters(theirs: nn.Module, ours: nn.Module) -> bool:
    """Whether two modules have the same parameters: names, shapes and values, ours taken in their type."""
    theirs_by_name, ours_by_name = dict(theirs.named_parameters()), dict(ours.named_parameters())
    return theirs_by_name.keys() == ours_by_name.keys() and all(
        _same(theirs_by_name[name], ours_by_name[name]) for name in theirs_by_name
    )


def _same(theirs: Tensor, ours: Tensor) -> bool:
    return theirs.shape == ours.shape and torch.equal(theirs, ours.to(theirs.device, theirs.dtype))
