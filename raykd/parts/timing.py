"""What the time of a step goes into, part by part: off unless a run is profiled."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PARTS = ("data", "copy", "encoder", "teacher decoder", "student", "objective", "backward", "optimiser", "checkpoint")
"""In the order of the table. What belongs to none of them is `other`."""
OTHER = "other"


class PartTimer:
    """Seconds by part. A part within another one counts for itself alone.

    The device is waited for at every border, so that each part has its own time: nothing overlaps while this is on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open = [OTHER]
        self.seconds: dict[str, float] = defaultdict(float)
        self._since = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def mark(self) -> None:
        """Give the time since the last mark to the part that is open."""
        now = self._now()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def open(self, part: str) -> None:
        """From now on it is this part's time."""
        self.mark()
        self._open.append(part)

    def close(self) -> None:
        """From now on it is the time of the part around it."""
        self.mark()
        self._open.pop()


_timer: PartTimer | None = None


@contextmanager
def part(name: str) -> Iterator[None]:
    """The time inside is this part's."""
    timer = _timer
    if timer is None:
        yield
        return
    timer.open(name)
    try:
        with torch.profiler.record_function(name):
            yield
    finally:
        timer.close()


@contextmanager
def timing(device: torch.device) -> Iterator[PartTimer]:
    """Parts are timed inside."""
    global _timer
    timer = _timer = PartTimer(device)
    try:
        yield timer
    finally:
        timer.mark()
        _timer = None
