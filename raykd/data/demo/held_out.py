"""Words that a demo corpus keeps from training, and the sentences that each split draws from.

A word of a grammar is held out when the hash of (seed, language, word) says so, unless a kind of sentence can hardly do
without it. So a corpus of any size and any kinds holds out the same words.
"""

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from raykd.data.demo.grammar import KINDS
from raykd.data.demo.languages import GRAMMARS

TEST_WORDS = "test_words"
"""Split whose every sentence has a held-out word; only where words are held out."""
_INDISPENSABLE = 0.2
"""Share of the sentences of a kind above which a word of them is never held out."""


@cache
def held_out_words(seed: int, language: str, share: float) -> frozenset[str]:
    """The words, about `share` of those that the grammar's kinds have."""
    largest: dict[str, float] = {}
    for kind in KINDS:
        for word, of_kind in GRAMMARS[language].word_shares(kind).items():
            largest[word] = max(of_kind, largest.get(word, 0.0))
    rare = (word for word, of_kind in largest.items() if of_kind <= _INDISPENSABLE)
    return frozenset(word for word in rare if _hash(f"{seed}-{language}-{word}") < share)


@cache
def pool(seed: int, split: str, language: str, kind: str, held_out: float) -> NDArray[np.int64]:
    """Numbers of a kind's sentences that a split may draw, in random order.

    Of a permutation drawn from the seed the first tenth is test's, the next dev's and the rest train's, each without the
    sentences that have a held-out word; those are `test_words`'. Everything is test_ood's, which has kinds of its own.
    """
    order = _order(seed, language, kind)
    tenth = len(order) // 10
    parts = {"test": order[:tenth], "dev": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    numbers = parts.get(split, order)
    if not held_out or split == "test_ood":
        return numbers
    holds = GRAMMARS[language].holding(kind, held_out_words(seed, language, held_out))[numbers]
    return numbers[holds if split == TEST_WORDS else ~holds]


@cache
def _order(seed: int, language: str, kind: str) -> NDArray[np.int64]:
    """The sentence numbers of a kind in random order."""
    return random_of(f"demo{seed}-{language}-{kind}").permutation(GRAMMARS[language].size(kind))


def random_of(identity: str) -> np.random.Generator:
    """Random numbers that follow from a text."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(identity.encode()).digest()[:16]))


def _hash(text: str) -> float:
    """A number from 0 to 1 that follows from a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64
