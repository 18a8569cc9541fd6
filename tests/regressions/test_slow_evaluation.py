"""An evaluation was given up when its first result took more than 900 s: model load and a whole batch of a large model on CPUs
were held against the search for a free worker.
"""

import time
from collections.abc import Iterator

import numpy as np
import pytest
import ray

from raykd.errors import UserError
from raykd.evaluation import runner

BATCHES = [np.arange(3), np.arange(2)]


@ray.remote
def slow(first_s: float) -> Iterator[tuple[int, str] | None]:
    yield None
    for number in range(len(BATCHES)):
        time.sleep(first_s)
        yield number, "words"


def test_a_slow_one_is_waited_for_and_told_of(ray_local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.get(ray.remote(lambda: None).remote())  # a process is there
    monkeypatch.setattr(runner, "_SCHEDULED_WITHIN_S", 20)
    monkeypatch.setattr(runner, "_TELL_EVERY_S", 0.2)
    told: list[tuple[int, int]] = []
    results = runner._collect([slow.remote(1.0)], BATCHES, lambda done, of: told.append((done, of)))
    assert results == {0: "words", 1: "words"}
    assert told.count((0, 5)) >= 2, "while the first batch is at work"
    assert told[-1] == (5, 5)


def test_one_that_finds_no_room_is_given_up(ray_local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_SCHEDULED_WITHIN_S", 0.5)
    stream = slow.options(num_cpus=99).remote(0.0)
    with pytest.raises(UserError, match=r"no worker found 0.05 CPUs and its GPU share free in 0.5 s"):
        runner._collect([stream], BATCHES, None)
    ray.cancel(stream)
