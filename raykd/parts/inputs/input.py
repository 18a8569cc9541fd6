"""Inputs: what is done to the mel that student and targets hear.

Shapes: B utterances, M mel channels, F frames of the window.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raykd.data.batches import Batch, RowKey
from raykd.parts.clock import Clock
from raykd.parts.part import Live, Part, Room

INPUTS_ROOM = Room("inputs")
LossGradient = Callable[[Batch], Tensor]
"""Gradient of the objective's mean over a micro-batch with respect to its mel_BMF. The student's gradients stay as they are."""


class Input(Part):
    """A change of the mel. Either `change_row`, as the rows are read, or what `build` gives, on the device."""

    room: ClassVar = INPUTS_ROOM
    kind: str

    changes_rows: ClassVar[bool] = False
    """Whether `change_row` does something."""

    def reaches_targets(self) -> bool:
        """Whether targets hear the change, too."""
        return True

    def change_row(self, window_MF: NDArray[np.float32], n_frames: int, key: RowKey) -> None:
        """Change one utterance's window in place; what is drawn at random follows from `key`."""


class LiveInput(Live, ABC):
    """A change of the mel on the device."""

    @abstractmethod
    def apply(self, batch: Batch, loss_gradient: LossGradient, clock: Clock) -> Batch:
        """The micro-batch with the mel that the student hears; `teacher_mel_BMF` is the targets', where that differs."""
