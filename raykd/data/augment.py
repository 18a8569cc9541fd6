"""SpecAugment (Park et al. 2019, arXiv 1904.08779): bands of mel channels and of frames set to zero.

Shapes: M mel channels, F frames.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from raykd.config.data import SpecAugment

_MOST_OF_UTTERANCE = 5
"""A band of frames covers at most one fifth of the utterance."""


def spec_augment(mel_MF: NDArray[np.float32], n_frames: int, config: SpecAugment, key: tuple[int, int, str]) -> None:
    """Mask the first `n_frames` frames of `mel_MF` in place.

    The masks follow from `key` = (seed, epoch, utterance id) alone, so they do not depend on the number of workers nor on where
    training was resumed.
    """
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    draws = np.random.Generator(np.random.Philox(seed))
    n_mels = mel_MF.shape[0]
    audible_MF = mel_MF[:, :n_frames]
    for _ in range(config.frequency_masks):
        audible_MF[_band(draws, n_mels, config.frequency_width), :] = 0.0
    for _ in range(config.time_masks):
        audible_MF[:, _band(draws, n_frames, min(config.time_width, n_frames // _MOST_OF_UTTERANCE))] = 0.0


def _band(draws: np.random.Generator, length: int, widest: int) -> slice:
    width = int(draws.integers(0, min(widest, length) + 1))
    start = int(draws.integers(0, length - width + 1))
    return slice(start, start + width)
