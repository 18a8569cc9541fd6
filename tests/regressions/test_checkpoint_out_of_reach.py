"""A checkpoint that the storage did not give for a moment was marked as damaged, passed over, and later deleted."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd import storage
from raykd.errors import UserError
from raykd.training import checkpoint as ckpt


def test_it_is_told_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = ckpt.CheckpointState(step=3, frozen_hash="", teacher_hash="", corpus_key="")
    path = ckpt.write_checkpoint(str(tmp_path), state, ckpt.Tensors({"w": torch.ones(2)}, {}))

    def out_of_reach(path: str) -> Any:
        raise OSError(errno.EIO, "Input/output error", path)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "read_bytes", out_of_reach)
        with pytest.raises(UserError, match=r"step-00000003: cannot be read \(Input/output error\); mend that"):
            ckpt.newest_good(str(tmp_path), lambda text: pytest.fail(text))
    assert ckpt.newest_good(str(tmp_path), lambda text: pytest.fail(text)) == path
