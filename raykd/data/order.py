"""Which utterances make up each step: a pure function of (index, seed, batch size, mix), whatever the number of workers."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raykd.config.data import Mix
from raykd.data.languages import configured_language
from raykd.errors import UserError

if TYPE_CHECKING:
    from raykd.data.corpus import Index

_POOL_BATCHES = 16
"""Global batches within which rows are sorted by length, where that is wanted."""

Positions = NDArray[np.int64]
"""Positions in an index."""


class EpochOrder:
    """The global batch of every step.

    Without a mix an epoch is a permutation of all utterances, drawn from (seed, epoch) and cut into batches; the last batch of
    an epoch is smaller when the batch size does not divide the number of utterances. With a mix an epoch has as many draws as
    there are utterances, but each language has its share of them: of n utterances with d draws each is drawn floor(d / n) or
    ceil(d / n) times, and those drawn once more take turns over the epochs, so that all are drawn equally often in the end.
    With lengths, the rows of a batch are of like length.

    Picklable and small: it holds a few numbers an utterance.
    """

    def __init__(
        self,
        index: "Index",
        seed: int,
        batch_size: int,
        mix: Mix | None = None,
        loss_tokens: NDArray[np.integer[Any]] | None = None,
        lengths: NDArray[np.integer[Any]] | None = None,
    ) -> None:
        """`loss_tokens`: positions with loss of each row of the index, where they are not its `n_tokens` (masked text).
        `lengths`: of each row, where rows of like length are to come together in a batch.
        """
        if len(index) == 0:
            raise UserError("data.source: no utterance is left to train on")
        self.seed = seed
        self.batch_size = batch_size
        self._loss_tokens = index.n_tokens if loss_tokens is None else loss_tokens
        self._lengths = lengths
        self._utterances = index.n_utterances
        self._languages: list[Positions] = []
        self._draws: NDArray[np.int64] = np.empty(0, np.int64)
        if mix is not None:
            names, codes = np.unique(index.languages.astype(str), return_inverse=True)
            self._languages = [np.flatnonzero(codes == code) for code in range(len(names))]
            counts = np.array([len(positions) for positions in self._languages])
            self._draws = _draws(_shares(mix, [str(name) for name in names], counts), len(index))
        self._cached: tuple[int, Positions] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}

    @property
    def utterances_per_epoch(self) -> int:
        """Draws in an epoch."""
        return len(self._loss_tokens)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch."""
        return -(-self.utterances_per_epoch // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, of a step, from 0."""
        return step // self.steps_per_epoch

    def global_batch(self, step: int) -> Positions:
        """Positions in the index of the utterances of a step, over all workers."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        start = step_of_epoch * self.batch_size
        return self._epoch(epoch)[start : start + self.batch_size]

    def global_utterances(self, step: int) -> int:
        """Utterances of a step, over all workers: more than rows where these are packs."""
        return int(self._utterances[self.global_batch(step)].sum())

    def global_tokens(self, step: int) -> int:
        """Positions with loss of a step, over all workers."""
        return int(self._loss_tokens[self.global_batch(step)].sum())

    def _epoch(self, epoch: int) -> Positions:
        if self._cached is None or self._cached[0] != epoch:
            drawn = self._drawn(epoch)
            shuffled = drawn[_permutation(len(drawn), self.seed, epoch)]
            self._cached = epoch, shuffled if self._lengths is None else self._by_length(shuffled, self._lengths, epoch)
        return self._cached[1]

    def _by_length(self, shuffled: Positions, lengths: NDArray[np.integer[Any]], epoch: int) -> Positions:
        """Sorted within a pool of some batches, so that batches differ from epoch to epoch; then the batches are shuffled."""
        pool, whole = _POOL_BATCHES * self.batch_size, len(shuffled) // self.batch_size
        pools = [shuffled[start : start + pool] for start in range(0, len(shuffled), pool)]
        by_length = np.concatenate([one[np.argsort(lengths[one], kind="stable")] for one in pools])
        batches = by_length[: whole * self.batch_size].reshape(whole, self.batch_size)
        batches = batches[_permutation(whole, self.seed, epoch, 0, 2)]
        return np.concatenate([batches.reshape(-1), by_length[whole * self.batch_size :]])

    def _drawn(self, epoch: int) -> Positions:
        """The draws of an epoch, unshuffled."""
        if not self._languages:
            return np.arange(self.utterances_per_epoch)
        drawn = []
        for language, (positions, draws) in enumerate(zip(self._languages, self._draws, strict=True)):
            everybody, extra = divmod(int(draws), len(positions))
            turn = _permutation(len(positions), self.seed, language, 1)
            once_more = turn[(epoch * extra + np.arange(extra)) % len(positions)]
            drawn += [np.tile(positions, everybody), positions[once_more]]
        return np.concatenate(drawn)


def slot_positions(global_batch: Positions, rank: int, world: int, micro_batches: int) -> list[Positions]:
    """The parts of a global batch that a worker takes, one for each of its micro-batches.

    Rows are dealt out in turn to the `world * micro_batches` slots, so slots differ by one row at most; with fewer rows than
    slots some are empty.
    """
    slots = world * micro_batches
    return [global_batch[micro * world + rank :: slots] for micro in range(micro_batches)]


def _permutation(length: int, *key: int) -> Positions:
    """A permutation that follows from the key: the order of raw Philox numbers, whose stream NumPy guarantees."""
    numbers = np.random.Philox(np.random.SeedSequence(key)).random_raw(length)
    return np.argsort(numbers, kind="stable")


def _shares(mix: Mix, languages: list[str], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of each language, summing to 1."""
    if mix.shares is None:
        shares = counts.astype(np.float64) ** (1.0 / (mix.temperature or 1.0))
        return shares / shares.sum()
    given = {configured_language(name, "data.mix.shares"): share for name, share in mix.shares.items()}
    if given.keys() != set(languages):
        raise UserError(
            f"data.mix.shares: names {', '.join(sorted(mix.shares))}, but the training data has {', '.join(languages)}; "
            "give each language of the data a share"
        )
    shares = np.array([given[language] for language in languages], np.float64)
    return shares / shares.sum()


def _draws(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers in proportion to the shares that sum to `total` (largest remainders are rounded up)."""
    exact = shares * total
    draws = np.floor(exact).astype(np.int64)
    for language in np.argsort(draws - exact, kind="stable")[: total - draws.sum()]:
        draws[language] += 1
    return draws
