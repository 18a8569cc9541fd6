"""Which of the searched keys mattered: what share of the differences each explains by itself. Pure.

Shapes: I trials, C columns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHUFFLES = 2000
_LOG_FROM = 10.0
"""Numbers whose largest is at least so many times the smallest are taken by their logarithm."""


@dataclass(frozen=True)
class Importance:
    """Of one key."""

    key: str
    share: float
    """Of the variance of the error rates that the key alone explains, 0 to 1: with numbers by a parabola, of their logarithms
    where they span more than a factor of 10; with other values by the means of each. Not adjusted: with few trials chance
    explains some."""
    p: float
    """Share of random shufflings of the trials that explain as much: 0.05 or less is more than chance."""
    trials: int


def importances(points: Sequence[Mapping[str, Any]], rates: Sequence[float], seed: int = 0) -> list[Importance]:
    """Of every key that has two values or more, the largest share first. A trial without a key counts for the others."""
    keys = dict.fromkeys(key for point in points for key in point)
    found = []
    for key in keys:
        having = [(point[key], rate) for point, rate in zip(points, rates, strict=True) if key in point and math.isfinite(rate)]
        values = [value for value, _ in having]
        design_IC = _design(values)
        if design_IC is None or len(having) <= design_IC.shape[1]:
            continue
        rates_I = np.asarray([rate for _, rate in having])
        share = _explained(design_IC, rates_I)
        rng = np.random.default_rng(seed)
        shuffled = [_explained(design_IC, rng.permutation(rates_I)) for _ in range(_SHUFFLES)]
        p = (1 + sum(one >= share - 1e-12 for one in shuffled)) / (1 + _SHUFFLES)
        found.append(Importance(key, share, p, len(having)))
    return sorted(found, key=lambda one: -one.share)


def _design(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """What the error rates are explained by, a column each; None where there is one value only."""
    distinct = list(dict.fromkeys(map(repr, values)))
    if len(distinct) < 2:
        return None
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numbers or len(distinct) < 4:
        return np.asarray([[float(repr(value) == one) for one in distinct] for value in values])
    x_I = np.asarray(values, dtype=np.float64)
    if x_I.min() > 0 and x_I.max() / x_I.min() >= _LOG_FROM:
        x_I = np.log(x_I)
    x_I = (x_I - x_I.mean()) / x_I.std()
    return np.stack([np.ones_like(x_I), x_I, x_I**2], 1)


def _explained(design_IC: NDArray[np.float64], rates_I: NDArray[np.float64]) -> float:
    """Share of the variance that a least-squares fit explains."""
    total = float(((rates_I - rates_I.mean()) ** 2).sum())
    if total == 0:
        return 0.0
    solution_C = np.linalg.lstsq(design_IC, rates_I, rcond=None)[0]
    left = float(((rates_I - design_IC @ solution_C) ** 2).sum())
    return max(0.0, 1 - left / total)
