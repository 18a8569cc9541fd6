"""Records on their way from a worker to the driver: none is lost or comes twice, whatever dies on the way but the driver.

A worker numbers its letters and keeps each until the driver has it. The box between them, an actor, may lose everything: the
worker sends what is not acknowledged again, and the driver says again what it has.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import ray

from raykd.training.loop import Record

_POLL_S = 0.1
_ANSWER_S = 5.0
Letter = tuple[str, int, Record]
"""Sender, number from 0 on, and what it says."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy="DEFAULT")
class _Box:
    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int], Record] = {}
        self._received: dict[str, int] = {}
        self._stopped = False

    def put(self, letters: list[Letter]) -> tuple[dict[str, int], bool]:
        """Add letters that are not here yet; how many of each sender the driver has, and whether training must stop."""
        for sender, number, record in letters:
            if number >= self._received.get(sender, 0):
                self._waiting[sender, number] = record
        return self._received, self._stopped

    def take(self, received: dict[str, int], stopped: bool) -> list[Letter]:
        """All letters but those that the driver has received."""
        self._received, self._stopped = received, stopped
        self._waiting = {key: self._waiting[key] for key in sorted(self._waiting) if key[1] >= received.get(key[0], 0)}
        return [(*key, record) for key, record in self._waiting.items()]

    def stopped(self) -> bool:
        return self._stopped


class Mailbox:
    """The driver's end."""

    def __init__(self) -> None:
        self.address: Any = _Box.remote()  # type: ignore[attr-defined]
        """For the workers' `Sender`."""
        self._received: dict[str, int] = {}
        self.stopped: str | None = None
        """Why a worker said that training must stop."""

    def stop(self) -> bool:
        """Tell the workers that training must stop: each does when it next sends. Whether the box could be told."""
        try:
            ray.get(self.address.take.remote(self._received, True), timeout=_ANSWER_S)
        except Exception:  # whatever a cluster that is going down says
            return False
        return True

    def records(self) -> Iterator[Record]:
        """What has come, each sender's in order."""
        for sender, number, record in ray.get(self.address.take.remote(self._received, self.stopped is not None)):
            if number == self._received.get(sender, 0):
                self._received[sender] = number + 1
                if record["kind"] == "stopped":
                    self.stopped = record["reason"]
                yield record


class StoppedError(Exception):
    """The driver wants training to stop."""


class Sender:
    """A worker's end."""

    def __init__(self, address: Any) -> None:
        self._box, self._name = address, uuid.uuid4().hex
        self._sent = 0
        self._kept: list[Letter] = []
        self._answers: list[Any] = []

    def stopped(self) -> bool:
        """Whether a worker said that training must stop: what Ray Train starts after that ends at once."""
        return ray.get(self._box.stopped.remote())

    def send(self, record: Record) -> None:
        """Send a record, without waiting.

        Raises:
            StoppedError: the driver said so.
        """
        self._kept.append((self._name, self._sent, record))
        self._sent += 1
        self._answers.append(self._box.put.remote(self._kept))
        ready, self._answers = ray.wait(self._answers, num_returns=len(self._answers), timeout=0)
        for answer in ready:
            self._forget(ray.get(answer))

    def flush(self) -> None:
        """Wait until the driver has everything. It may be busy evaluating; when it is dead, Ray ends this worker."""
        while self._kept:
            self._forget(ray.get(self._box.put.remote(self._kept)))
            if self._kept:
                time.sleep(_POLL_S)

    def _forget(self, answer: tuple[dict[str, int], bool]) -> None:
        received, stopped = answer
        if stopped:
            self._kept = []
            raise StoppedError
        has = received.get(self._name, 0)
        self._kept = [letter for letter in self._kept if letter[1] >= has]
