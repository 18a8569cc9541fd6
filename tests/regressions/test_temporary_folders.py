"""A process that was killed left its temporary folder behind, such as a checkpoint that it had downloaded to evaluate it."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from raykd import storage
from raykd.training.profiling import TRACE, Profile

HOLDER = """
import os, time
from raykd import storage
with storage.temporary_dir() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> tuple["subprocess.Popen[str]", Path]:
    """A process with a temporary folder, and that."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_next_one_removes_it_and_none_that_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    alive, in_use = holder(tmp_path)
    dead, left = holder(tmp_path)
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        with storage.temporary_dir():
            assert left.exists(), "it may have been made a moment ago, and not be locked yet"
        monkeypatch.setattr(storage, "_YOUNG_S", 0.0)
        with storage.temporary_dir() as mine:
            assert not left.parent.exists()
            assert in_use.exists()
            assert Path(mine).exists()
    finally:
        alive.kill()
        alive.wait()
    assert not Path(mine).parent.exists()


def test_a_trace_is_written_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "temporary_dir", lambda: nullcontext(str(tmp_path)))
    profile = Profile(torch.device("cpu"))
    profile.begin()
    profile.end(str(tmp_path / "out"))
    assert (tmp_path / TRACE).exists()
