"""Ray's core ends the process, past Python, when its raylet or its head process is gone: commands ended without a word."""

import subprocess
import sys

import pytest

START = "import os; from raykd.training.cluster import leave_last_words; leave_last_words(); "


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "told"),
    [("os._exit(1)", True), ("os.kill(os.getpid(), 9)", True), ("pass", False), ("raise SystemExit(2)", False)],
)
def test_who_is_ended_by_ray_has_said_so(end: str, told: bool) -> None:
    ended = subprocess.run([sys.executable, "-c", START + end], stderr=subprocess.PIPE, text=True)
    assert ended.stderr.startswith("raykd: the command was killed") == told
    assert len(ended.stderr.splitlines()) == told
