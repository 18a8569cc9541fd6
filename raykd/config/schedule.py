"""Numbers that change over training: their config, and their value at a step, a pure function of it."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from raykd.config.base import Section


class ScheduleConfig(Section):
    """A number that changes over training, from `start` to `end` between `begin` and `until`."""

    kind: Literal["constant", "linear", "cosine", "exponential", "step"] = "linear"
    """The way from `start` to `end`."""
    start: float
    """Value up to `begin`."""
    end: float | None = None
    """Value from `until` on; for `step`, the value from `begin` on. Not used by `constant`."""
    begin: float = Field(0.0, ge=0)
    """When the change begins."""
    until: float = Field(1.0, gt=0)
    """When it has ended."""
    after: float | None = Field(None, ge=0)
    """Value from `until` on, where that is another one than `end`: 0 lets go of what `end` had nearly let go of."""
    by: Literal["progress", "step"] = "progress"
    """Unit of `begin` and `until`: share of training done (0 to 1) or optimiser steps."""

    @model_validator(mode="after")
    def _possible(self) -> "ScheduleConfig":
        if self.kind != "constant" and self.end is None:
            raise ValueError(f"a {self.kind} schedule needs `end`")
        if self.kind in {"linear", "cosine", "exponential"} and self.until <= self.begin:
            raise ValueError("`until` must be greater than `begin`")
        if self.kind == "exponential" and (self.start <= 0 or (self.end or 0) <= 0):
            raise ValueError("an exponential schedule needs `start` and `end` above 0")
        if self.after is not None and self.kind in {"constant", "step"}:
            raise ValueError(f"a {self.kind} schedule has no `after`")
        if self.by == "progress" and max(self.begin, self.until) > 1:
            raise ValueError("by progress, `begin` and `until` lie between 0 and 1; for steps say by: step")
        if self.by == "step" and self.kind in {"linear", "cosine", "exponential"} and "until" not in self.model_fields_set:
            raise ValueError(f"by step, a {self.kind} schedule needs `until`, the step from which it holds `end`")
        return self

    @property
    def lowest(self) -> float:
        """The smallest value over training."""
        return min(value for value in (self.start, self.end, self.after) if value is not None)


def _never_negative(schedule: ScheduleConfig) -> ScheduleConfig:
    if schedule.lowest < 0:
        raise ValueError(f"must stay at least 0 (goes to {schedule.lowest:g})")
    return schedule


def _always_positive(schedule: ScheduleConfig) -> ScheduleConfig:
    if schedule.lowest <= 0:
        raise ValueError(f"must stay greater than 0 (goes to {schedule.lowest:g})")
    return schedule


Weight = Annotated[float, Field(ge=0)] | Annotated[ScheduleConfig, AfterValidator(_never_negative)]
Temperature = Annotated[float, Field(gt=0)] | Annotated[ScheduleConfig, AfterValidator(_always_positive)]


def value_at(schedule: float | ScheduleConfig, step: int, total_steps: int) -> float:
    """The value of a schedule before optimiser step `step` (0 is the first, `total_steps` is after the last).

    `linear`, `cosine` and `exponential` hold `start` up to `begin`, then move to `end`, which they hold from `until` on, both
    ends exactly (from `until` on `after`, where it is given). `exponential` is geometric: equal steps change the value by equal
    factors. `cosine` is half a cosine wave (Loshchilov and Hutter 2017, Eq. 5, without restarts). `step` jumps from `start` to
    `end` at `begin`.
    """
    if not isinstance(schedule, ScheduleConfig):
        return float(schedule)
    start = schedule.start
    end = start if schedule.end is None else schedule.end
    now = step / max(total_steps, 1) if schedule.by == "progress" else float(step)
    if schedule.kind == "constant" or now < schedule.begin:
        return start
    if schedule.kind == "step" or now >= schedule.until:
        return end if schedule.after is None else schedule.after
    way = (now - schedule.begin) / (schedule.until - schedule.begin)
    if way == 0:
        return start
    if schedule.kind == "linear":
        return start + (end - start) * way
    if schedule.kind == "cosine":
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * way))
    return start * (end / start) ** way


def stays_zero(schedule: float | ScheduleConfig, step: int, total_steps: int) -> bool:
    """Whether the value is 0 at `step` and at every step after it."""
    if not isinstance(schedule, ScheduleConfig):
        return schedule == 0
    after = schedule.end if schedule.after is None else schedule.after
    if schedule.kind == "constant" or schedule.start == schedule.end == after:
        return schedule.start == 0
    now = step / max(total_steps, 1) if schedule.by == "progress" else float(step)
    return after == 0 and now >= (schedule.begin if schedule.kind == "step" else schedule.until)
