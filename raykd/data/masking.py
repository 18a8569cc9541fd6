"""Which positions of a segment are masked: pure functions of (seed, epoch, id), whoever asks and wherever a run was resumed.

Shapes: N segments, L positions of one segment.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def masked_counts(n_tokens_N: NDArray[np.integer[Any]], mask_share: float | None) -> NDArray[np.int64]:
    """How many positions of each segment are masked at a visit.

    Args:
        n_tokens_N: lengths of the whole token sequences, prefix and end of text included.
        mask_share: share of the positions, rounded, at least one; None: exactly one, as in the published Czech masked
            language model.
    """
    if mask_share is None:
        return np.ones(len(n_tokens_N), np.int64)
    return np.maximum(1, np.rint(mask_share * n_tokens_N)).astype(np.int64)


def masked_positions(length: int, count: int, *key: int | str) -> NDArray[np.int64]:
    """`count` of the positions 0 to `length` - 1, ascending, drawn uniformly without replacement from what `key` says.

    Each position gets 64 bits of SHAKE-128 of the key; those with the smallest numbers are taken. So the draw is the same on
    every machine and in every release of NumPy.
    """
    numbers_L = np.frombuffer(hashlib.shake_128(repr(key).encode()).digest(8 * length), "<u8")
    return np.sort(np.argsort(numbers_L, kind="stable")[:count])
