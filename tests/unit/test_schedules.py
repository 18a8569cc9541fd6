"""Schedules: exact ends, the shapes between them, and both units."""

import pytest

from raykd.config.objective import ScheduleConfig
from raykd.objectives.schedules import value_at


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
