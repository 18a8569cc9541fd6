"""Where training stands, and what is drawn at random there: the same for any number of workers."""

import hashlib
from dataclasses import dataclass

import numpy as np

from raykd.config.schedule import ScheduleConfig, stays_zero, value_at


@dataclass(frozen=True)
class Clock:
    """The time of one optimiser step."""

    step: int
    """From 0."""
    steps: int
    """Of the whole run."""
    steps_per_epoch: int = 1
    seed: int = 0
    """Of the run."""

    @property
    def epoch(self) -> int:
        """From 0."""
        return self.step // self.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether this is the last step of an epoch."""
        return (self.step + 1) % self.steps_per_epoch == 0

    @property
    def progress(self) -> float:
        """Share of training that is done before this step, from 0 to 1."""
        return self.step / max(self.steps, 1)

    def at(self, number: float | ScheduleConfig) -> float:
        """The value of a number that may change over training."""
        return value_at(number, self.step, self.steps)

    def stays_zero(self, number: float | ScheduleConfig) -> bool:
        """Whether the number is 0 now and to the end."""
        return stays_zero(number, self.step, self.steps)

    def draws(self, purpose: str, utterance: str) -> np.random.Generator:
        """Random numbers for an utterance at this step, the same on any worker and wherever training was resumed."""
        return draws(self.seed, self.step, purpose, utterance)


def draws(*key: int | str) -> np.random.Generator:
    """Random numbers that follow from a key alone."""
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    return np.random.Generator(np.random.Philox(seed))
