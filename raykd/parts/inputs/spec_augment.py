"""SpecAugment (Park et al. 2019, arXiv 1904.08779): bands of mel channels and of frames set to zero.

Shapes: M mel channels, F frames.
"""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raykd.data.batches import RowKey
from raykd.parts.clock import draws
from raykd.parts.inputs.input import Input

_MOST_OF_UTTERANCE = 5
"""A band of frames covers at most one fifth of the utterance."""


class SpecAugment(Input):
    """SpecAugment (Park et al. 2019) on the mel: zeroed bands of mel channels and of frames.

    The masks follow from (seed, epoch, utterance id) alone, so they do not depend on the number of workers nor on where
    training was resumed. `data.spec_augment: {...}` is another way to write it.
    """

    kind: Literal["spec_augment"] = "spec_augment"
    changes_rows: ClassVar[bool] = True

    frequency_masks: int = Field(2, ge=0)
    """Bands of mel channels."""
    frequency_width: int = Field(15, ge=1)
    """Widest band, in mel channels."""
    time_masks: int = Field(2, ge=0)
    """Bands of frames."""
    time_width: int = Field(40, ge=1)
    """Widest band, in frames of 10 ms; never more than a fifth of the utterance."""
    teacher_hears: Literal["clean", "perturbed"] = "perturbed"
    """Which mel the targets hear: `perturbed` is the student's. On clean speech one answer of a cache serves all epochs."""

    def reaches_targets(self) -> bool:
        """As `teacher_hears` says."""
        return self.teacher_hears == "perturbed"

    def change_row(self, window_MF: NDArray[np.float32], n_frames: int, key: RowKey) -> None:
        """Mask the first `n_frames` frames in place."""
        random = draws(*key)
        n_mels = window_MF.shape[0]
        audible_MF = window_MF[:, :n_frames]
        for _ in range(self.frequency_masks):
            audible_MF[_band(random, n_mels, self.frequency_width), :] = 0.0
        for _ in range(self.time_masks):
            audible_MF[:, _band(random, n_frames, min(self.time_width, n_frames // _MOST_OF_UTTERANCE))] = 0.0


def _band(random: np.random.Generator, length: int, widest: int) -> slice:
    width = int(random.integers(0, min(widest, length) + 1))
    start = int(random.integers(0, length - width + 1))
    return slice(start, start + width)
