"""Checkpoints: complete or not there."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raykd import storage
from raykd.errors import UserError
from raykd.training import checkpoint as ckpt

STATE = ckpt.CheckpointState(step=7, frozen_hash="f", teacher_hash="t", corpus_key="c")
PARAMETERS = {"model.decoder.embed_tokens.weight": torch.arange(6.0).reshape(2, 3)}
MOMENTS = {"model.decoder.embed_tokens.weight.exp_avg": torch.ones(2, 3)}
PARTS = {"updates.0/step": torch.tensor([3.0])}
TENSORS = ckpt.Tensors(PARAMETERS, MOMENTS, PARTS)


def write(folder: Path, step: int) -> str:
    return ckpt.write_checkpoint(str(folder), ckpt.CheckpointState(step, "f", "t", "c"), TENSORS)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = ckpt.write_checkpoint(str(tmp_path), STATE, TENSORS)
    found = ckpt.read_state(path)
    assert replace(found, files={}) == STATE
    assert set(found.files) == {"trainable.safetensors", "optimizer.safetensors", "parts.safetensors"}
    torch.testing.assert_close(ckpt.read_trainable(path), PARAMETERS)
    torch.testing.assert_close(ckpt.read_moments(path), MOMENTS)
    torch.testing.assert_close(ckpt.read_parts(path), PARTS)
    assert ckpt.latest_checkpoint(str(tmp_path)) == path


def test_parts_without_state_have_no_file(tmp_path: Path) -> None:
    path = ckpt.write_checkpoint(str(tmp_path), STATE, ckpt.Tensors(PARAMETERS, MOMENTS))
    assert not (Path(path) / "parts.safetensors").exists()
    assert ckpt.read_parts(path) == {}
    assert ckpt.damage(path) is None


def test_a_checkpoint_without_its_mark_is_none(tmp_path: Path) -> None:
    write(tmp_path, 1)
    newest = write(tmp_path, 2)
    (Path(newest) / "state.json").unlink()
    assert ckpt.latest_checkpoint(str(tmp_path)) == ckpt.path_of(str(tmp_path), 1)


@pytest.mark.parametrize("failing_write", [1, 2, 3, 4])
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_write: int) -> None:
    good = write(tmp_path, 1)
    write_bytes, calls = storage.write_bytes, []

    def full_disk(path: str, data: bytes) -> None:
        calls.append(path)
        if len(calls) == failing_write:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(path, data)

    monkeypatch.setattr(storage, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2)
    assert ckpt.list_checkpoints(str(tmp_path)) == [good]
    assert not Path(ckpt.path_of(str(tmp_path), 2)).exists()


def test_pruning_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    paths = [write(tmp_path, step) for step in (1, 2, 3, 4, 5)]
    ckpt.prune_checkpoints(str(tmp_path), keep=2, protected={paths[1]})
    assert [ckpt.step_of(path) for path in ckpt.list_checkpoints(str(tmp_path))] == [2, 4, 5]


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("frozen_hash", "frozen weights"),
        ("teacher_hash", "the teacher"),
        ("corpus_key", "the data"),
        ("parts_hash", "a file of --parts"),
    ],
)
def test_another_run_is_refused(field: str, what: str) -> None:
    other = ckpt.CheckpointState(**{**vars(STATE), field: "other"})
    with pytest.raises(UserError, match=what):
        ckpt.check_same_run(other, STATE, "runs/a/checkpoints/step-00000007")
