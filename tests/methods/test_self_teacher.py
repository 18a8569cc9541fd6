"""Copies of the student that follow it: averages, snapshots and an epoch behind, against plain arithmetic in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from raykd.config.schedule import ScheduleConfig
from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.students.learner import Learner
from raykd.parts.updates.self_teacher import Ema, Follower, PreviousEpoch, SelfTeacher, Snapshot
from raykd.parts.updates.update import Update
from raykd.parts.worker import Worker

STEPS, PER_EPOCH = 12, 4


class OneLayer(Learner):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.still = nn.Linear(2, 2).requires_grad_(False)


def history(update: Update, dev_loss: Callable[[Any], float] = lambda model: 0.0) -> tuple[list[torch.Tensor], Follower]:
    """The copy's weight after each step of a student whose weight is the number of steps done."""
    student = OneLayer()
    nn.init.zeros_(student.layer.weight)
    follower = update.build(Worker(torch.device("cpu"), student, None, dev_loss))  # type: ignore[arg-type]
    assert isinstance(follower, Follower)
    seen = []
    for step in range(STEPS):
        nn.init.constant_(student.layer.weight, step + 1.0)
        follower.after_update(Clock(step, STEPS, PER_EPOCH), {})
        seen.append(follower.model.layer.weight.detach().clone())
    return seen, follower


def values(seen: list[torch.Tensor]) -> list[float]:
    return [float(weight.double().mean()) for weight in seen]


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_an_average_of_all_steps(decay: float) -> None:
    expected, average = [], 0.0
    for step in range(STEPS):
        average = decay * average + (1 - decay) * (step + 1)
        expected.append(average)
    assert values(history(Ema(decay=decay))[0]) == pytest.approx(expected)


def test_a_decay_that_grows() -> None:
    decay = ScheduleConfig(start=0.0, end=1.0)
    expected, average = [], 0.0
    for step in range(STEPS):
        average = step / STEPS * average + (1 - step / STEPS) * (step + 1)
        expected.append(average)
    assert values(history(Ema(decay=decay))[0]) == pytest.approx(expected)


def test_the_epoch_before() -> None:
    assert values(history(PreviousEpoch())[0]) == [0.0] * 3 + [4.0] * 4 + [8.0] * 4 + [12.0]


def test_a_snapshot_of_the_last_weights_stays() -> None:
    assert values(history(Snapshot(at=0.5))[0]) == [0.0] * 5 + [6.0] * 7


def test_a_snapshot_that_is_taken_again() -> None:
    assert values(history(Snapshot(at=0.25, every_epochs=2))[0]) == [0.0] * 2 + [3.0] * 5 + [8.0] * 5


def test_the_best_so_far_is_kept() -> None:
    """The loss on dev is lowest at step 4; epochs end at 4, 8, 12."""
    seen, follower = history(
        Snapshot(choose="best", at=0.75), lambda model: abs(float(model.layer.weight.detach().mean()) - 3.5)
    )
    assert values(seen) == [0.0] * 3 + [4.0] * 9
    assert float(follower.state()["best_dev_loss"]) == pytest.approx(0.5)


@pytest.mark.parametrize("update", [Ema(decay=0.5), Snapshot(choose="best", at=0.5), PreviousEpoch()])
def test_a_copy_goes_on_from_its_state(update: Update) -> None:
    _, follower = history(update)
    state = {name: tensor.clone() for name, tensor in follower.state().items()}
    assert "still.weight" not in state, "only what trains"
    other = update.build(Worker(torch.device("cpu"), OneLayer(), None, lambda model: 0.0))  # type: ignore[arg-type]
    assert isinstance(other, Follower)
    other.restore(state)
    for name, tensor in other.state().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
    torch.testing.assert_close(other.model.layer.weight, follower.model.layer.weight)


def test_an_update_that_copies_nothing_is_no_self_teacher() -> None:
    class Idle(Update):
        kind: str = "idle"

    with pytest.raises(UserError, match="no copy of the student"):
        SelfTeacher(update=Idle()).build(Worker(torch.device("cpu"), OneLayer(), None, lambda model: 0.0))  # type: ignore[arg-type]
