"""The actor between workers and driver once lost what waited in it, and that training was to stop, when it was restarted; and
asking it then raised in the driver.
"""

import os
import signal

import pytest
import ray

from raykd.training.mailbox import Mailbox, Sender

pytestmark = pytest.mark.usefixtures("ray_local")


def kill(mailbox: Mailbox) -> None:
    """The actor's process dies, as of lack of memory; Ray starts an empty one."""
    pid = ray.get(mailbox.address.__ray_call__.remote(lambda box: os.getpid()))
    os.kill(pid, signal.SIGKILL)


def steps(mailbox: Mailbox) -> list[int]:
    return [record["step"] for record in mailbox.records()]


def test_a_restart_loses_and_doubles_nothing() -> None:
    mailbox = Mailbox()
    sender = Sender(mailbox.address)
    seen: list[int] = []
    for step in range(30):
        sender.send({"kind": "train", "step": step})
        if step % 7 == 3:
            kill(mailbox)
        if step % 5 == 0:
            seen += steps(mailbox)
    kill(mailbox)
    ray.get([sender._box.put.remote(sender._kept)])
    seen += steps(mailbox)
    assert seen == list(range(30))
    assert steps(mailbox) == []
    sender.flush()
    assert sender._kept == []


def test_a_stop_is_not_forgotten() -> None:
    mailbox = Mailbox()
    first = Sender(mailbox.address)
    first.send({"kind": "stopped", "reason": "the loss became not finite", "step": 3})
    steps(mailbox)
    kill(mailbox)
    assert steps(mailbox) == []
    assert mailbox.stopped == "the loss became not finite"
    assert Sender(mailbox.address).stopped(), "a group that Ray Train starts anew ends at once"


def test_workers_that_are_started_anew_count_from_0_again() -> None:
    mailbox = Mailbox()
    for _ in range(2):
        sender = Sender(mailbox.address)
        for step in range(3):
            sender.send({"kind": "train", "step": step})
    seen = [step for _ in range(20) for step in steps(mailbox)]
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]
