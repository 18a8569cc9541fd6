"""Word error rates of several runs of a method, and whether two methods differ. Pure.

A method's errors on an utterance are the mean over its seeds. Two methods are compared by a paired bootstrap over utterances
(Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation"): utterances are drawn with
replacement, the same for both, and the difference of the two rates is taken each time. It says what other utterances would
have given, and nothing of other seeds; for these there is the spread.

Shapes: I utterances, R resamples, K seeds.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KINDS = ("substitutions", "deletions", "insertions", "repeated_5grams")
_DRAWN_AT_ONCE = 2_000_000
"""Utterances that are drawn at a time, which bounds the memory."""


@dataclass(frozen=True)
class Scored:
    """One model on one test set: words and their errors by utterance."""

    ids: tuple[str, ...]
    languages: tuple[str, ...]
    words_I: NDArray[np.int64]
    errors_I: NDArray[np.int64]
    kinds: Mapping[str, int]
    """Of all errors, by kind: substitutions, deletions, insertions; and repeated_5grams, five words in a row that were said
    before."""
    expert_use: Mapping[str, Mapping[str, float]]
    """By language: shares of `evaluation.expert_use`, where the model has experts."""

    def rate(self, language: str | None = None) -> float:
        """Word error rate over all utterances, or those of a language."""
        of = slice(None) if language is None else np.array([one == language for one in self.languages])
        return float(self.errors_I[of].sum() / max(1, self.words_I[of].sum()))

    @property
    def codes(self) -> list[str]:
        """The languages, sorted."""
        return sorted(set(self.languages))

    def mean_rate(self) -> float:
        """Mean of the languages' rates."""
        return statistics.fmean(self.rate(language) for language in self.codes)


@dataclass(frozen=True)
class Spread:
    """A number over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Their standard deviation; None of one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Of the rates of two methods on the same utterances: below 0 where the first has fewer errors."""

    value: float
    low: float
    high: float
    """Of the middle 95 % of the resamples."""
    p: float
    """Twice the share of resamples on the other side of 0, or at it."""


def difference(ours: Sequence[Scored], theirs: Sequence[Scored], resamples: int, seed: int = 0) -> Difference:
    """Of two methods with their seeds.

    Raises:
        ValueError: they were not scored on the same utterances.
    """
    reference = ours[0]
    for one in (*ours, *theirs):
        if one.ids != reference.ids or not np.array_equal(one.words_I, reference.words_I):
            raise ValueError("not the same utterances")
    moved_I = _mean(ours) - _mean(theirs)
    words_I = reference.words_I.astype(np.float64)
    rng = np.random.Generator(np.random.Philox(seed))
    count = len(moved_I)
    rates: list[NDArray[np.float64]] = []
    at_once = max(1, _DRAWN_AT_ONCE // max(1, count))
    for begin in range(0, resamples, at_once):
        drawn_RI = rng.integers(0, count, (min(at_once, resamples - begin), count))
        rates.append(moved_I[drawn_RI].sum(1) / np.maximum(1, words_I[drawn_RI].sum(1)))
    rates_R = np.concatenate(rates)
    low, high = np.quantile(rates_R, (0.025, 0.975))
    other_side = min(float((rates_R <= 0).mean()), float((rates_R >= 0).mean()))
    value = float(moved_I.sum() / max(1.0, words_I.sum()))
    return Difference(value, float(low), float(high), min(1.0, 2 * max(other_side, 1 / resamples)))


def _mean(scored: Sequence[Scored]) -> NDArray[np.float64]:
    return np.mean([one.errors_I for one in scored], axis=0)


def starred(p: float) -> str:
    """`*` below 0.05, `**` below 0.01."""
    return "**" if p < 0.01 else "*" if p < 0.05 else ""


def told(spread: Spread) -> str:
    """In percent, with the standard deviation over seeds."""
    text = f"{100 * spread.mean:.2f}"
    deviation = spread.deviation
    return text if deviation is None or math.isnan(deviation) else f"{text} ± {100 * deviation:.2f}"
