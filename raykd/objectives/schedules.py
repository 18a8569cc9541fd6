"""Numbers that change over training: a pure function of the step."""

import math

from raykd.config.objective import ScheduleConfig


def value_at(schedule: float | ScheduleConfig, step: int, total_steps: int) -> float:
    """The value of a schedule before optimiser step `step` (0 is the first, `total_steps` is after the last).

    `linear`, `cosine` and `exponential` hold `start` up to `begin`, then move to `end`, which they hold from `until` on, both
    ends exactly. `exponential` is geometric: equal steps change the value by equal factors. `cosine` is half a cosine wave
    (Loshchilov and Hutter 2017, Eq. 5, without restarts). `step` jumps from `start` to `end` at `begin`.
    """
    if not isinstance(schedule, ScheduleConfig):
        return float(schedule)
    start = schedule.start
    end = start if schedule.end is None else schedule.end
    now = step / max(total_steps, 1) if schedule.by == "progress" else float(step)
    if schedule.kind == "constant" or now < schedule.begin:
        return start
    if schedule.kind == "step" or now >= schedule.until:
        return end
    way = (now - schedule.begin) / (schedule.until - schedule.begin)
    if way == 0:
        return start
    if schedule.kind == "linear":
        return start + (end - start) * way
    if schedule.kind == "cosine":
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * way))
    return start * (end / start) ** way
