"""Ray's core ends the process, past Python, when its node dies within `ray.init`: the command ended without a word."""

import subprocess
import sys

import pytest

START = "import os; from raykd.training.cluster import last_words\nwith last_words(): "


@pytest.mark.slow
def test_who_is_ended_as_ray_starts_has_said_so() -> None:
    ended = subprocess.run([sys.executable, "-c", START + "os._exit(1)"], stderr=subprocess.PIPE, text=True)
    went_on = subprocess.run([sys.executable, "-c", START + "pass"], stderr=subprocess.PIPE, text=True)
    assert ended.stderr.startswith("raykd: Ray's own processes were ended while they started; give the command again")
    assert went_on.stderr == ""
