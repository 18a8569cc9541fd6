"""Schedules: exact ends, the shapes between them, and both units."""

import pytest

from raykd.config.schedule import ScheduleConfig, value_at
from raykd.parts.clock import Clock, draws


def schedule(kind: str, **fields: object) -> ScheduleConfig:
    return ScheduleConfig.model_validate({"kind": kind, "start": 0.1, "end": 0.3, **fields})


def test_a_number_is_constant() -> None:
    assert value_at(0.7, 0, 100) == value_at(0.7, 99, 100) == 0.7
    assert value_at(ScheduleConfig(kind="constant", start=0.7), 50, 100) == 0.7


@pytest.mark.parametrize("kind", ["linear", "cosine", "exponential"])
@pytest.mark.parametrize("ends", [(0.1, 0.3), (0.3, 0.1), (1e-3, 7.0)])
def test_both_ends_are_exact(kind: str, ends: tuple[float, float]) -> None:
    ramp = schedule(kind, start=ends[0], end=ends[1], begin=0.2, until=0.7)
    assert [value_at(ramp, step, 10) for step in (0, 1, 2)] == [ends[0]] * 3
    assert [value_at(ramp, step, 10) for step in (7, 8, 10)] == [ends[1]] * 3
    assert all(min(ends) < value_at(ramp, step, 10) < max(ends) for step in (3, 4, 5, 6))


@pytest.mark.parametrize(
    ("kind", "quarter", "half"),
    [("linear", 0.15, 0.2), ("cosine", 0.1 + 0.2 * (1 - 2**-0.5) / 2, 0.2), ("exponential", 0.1 * 3**0.25, 0.03**0.5)],
)
def test_shapes_between_the_ends(kind: str, quarter: float, half: float) -> None:
    assert value_at(schedule(kind), 1, 4) == pytest.approx(quarter)
    assert value_at(schedule(kind), 2, 4) == pytest.approx(half)


def test_step_jumps_at_begin() -> None:
    jump = schedule("step", begin=0.5)
    assert [value_at(jump, step, 4) for step in range(5)] == [0.1, 0.1, 0.3, 0.3, 0.3]


def test_by_step_does_not_depend_on_the_length_of_training() -> None:
    ramp = schedule("linear", start=0, end=10, begin=5, until=15, by="step")
    assert [value_at(ramp, step, 1000) for step in (0, 5, 6, 10, 15, 500)] == [0, 0, 1, 5, 10, 10]
    assert value_at(ramp, 10, 20) == value_at(ramp, 10, 1000)


def test_a_clock_tells_the_epoch_and_how_far_training_is() -> None:
    clock = Clock(step=7, steps=20, steps_per_epoch=4)
    assert (clock.epoch, clock.ends_epoch, clock.progress) == (1, True, 0.35)
    assert (Clock(8, 20, 4).epoch, Clock(8, 20, 4).ends_epoch) == (2, False)
    assert clock.at(3) == 3
    assert clock.at(schedule("linear", start=0, end=1)) == 0.35


@pytest.mark.parametrize(
    ("number", "from_step"),
    [
        (0, 0),
        (0.0, 0),
        (0.3, None),
        (ScheduleConfig(kind="constant", start=0), 0),
        (ScheduleConfig(kind="constant", start=0.3, end=0), None),
        (ScheduleConfig(start=0, end=0), 0),
        (ScheduleConfig(start=1, end=0), 10),
        (ScheduleConfig(start=1, end=0, until=0.5), 5),
        (ScheduleConfig(kind="cosine", start=1, end=0, until=0.5), 5),
        (ScheduleConfig(kind="linear", start=1, end=0, begin=2, until=7, by="step"), 7),
        (ScheduleConfig(kind="step", start=1, end=0, begin=0.3), 3),
        (ScheduleConfig(kind="step", start=1, end=0, begin=6, by="step"), 6),
        (ScheduleConfig(start=0, end=1, begin=0.9), None),
        (ScheduleConfig(kind="step", start=0, end=1, begin=0.9), None),
        (ScheduleConfig(kind="exponential", start=1, end=1e-9), None),
    ],
)
def test_a_number_stays_zero_from_where_it_is_zero_to_the_end(number: float | ScheduleConfig, from_step: int | None) -> None:
    steps = 10
    clocks = [Clock(step, steps) for step in range(steps + 1)]
    values = [clock.at(number) for clock in clocks]
    assert [clock.stays_zero(number) for clock in clocks] == [not any(values[step:]) for step in range(steps + 1)]
    assert [clock.stays_zero(number) for clock in clocks] == [from_step is not None and step >= from_step for step in range(11)]


def test_draws_follow_from_seed_step_purpose_and_utterance_alone() -> None:
    def drawn(clock: Clock, purpose: str = "mix", utterance: str = "a") -> float:
        return float(clock.draws(purpose, utterance).random())

    clock = Clock(step=3, steps=10, steps_per_epoch=2, seed=1)
    assert drawn(clock) == drawn(Clock(step=3, steps=99, steps_per_epoch=7, seed=1))
    others = [drawn(Clock(4, 10, 2, 1)), drawn(Clock(3, 10, 2, 2)), drawn(clock, "drop"), drawn(clock, utterance="b")]
    assert len({drawn(clock), *others}) == 5
    assert draws("a", 1).random() == draws("a", 1).random() != draws("a1").random()
