"""Contexts: what the decoder reads."""

from abc import ABC, abstractmethod
from typing import ClassVar

from raykd.data.batches import Batch
from raykd.parts.clock import Clock
from raykd.parts.part import Live, Part, Room

CONTEXTS_ROOM = Room("contexts")


class Context(Part):
    """Which token ids the decoders of student and targets read. `build` gives a `LiveContext`, or None for the labels."""

    room: ClassVar = CONTEXTS_ROOM
    kind: str


class LiveContext(Live, ABC):
    """A context at work."""

    @abstractmethod
    def apply(self, batch: Batch, clock: Clock) -> Batch:
        """The micro-batch, on the device, with the decoder input that is to be read (`Batch.changed`).

        What is drawn at random follows from `clock.draws`. Where the decoder input is not the label's, say so in `sampled_B`.
        """
