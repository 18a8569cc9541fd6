"""What stands in training and in dev or test alike. Pure functions over the columns of an index."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raykd.data.splits import UNUSED_DEV

TRAIN = "train"
_SHOWN = 3


def same_recordings(sounds: Sequence[str], splits: Sequence[str]) -> NDArray[np.bool_]:
    """For each utterance whether it trains, and one of another split sounds exactly so."""
    held_out = {sound for sound, split in zip(sounds, splits, strict=True) if split != TRAIN}
    return np.array([split == TRAIN and sound in held_out for sound, split in zip(sounds, splits, strict=True)], bool)


@dataclass(frozen=True)
class Leak:
    """Sentences of a split that are trained on too."""

    split: str
    utterances: int
    """Whose sentence is in train."""
    of: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(f"{example[:60]!r}" for example in self.examples)
        return (
            f"{self.utterances} of {self.of} utterances of {self.split} have a sentence that is in train as well, such as "
            f"{shown}: their error rate is that of known sentences"
        )


def same_sentences(texts: Sequence[str], splits: Sequence[str]) -> list[Leak]:
    """Of every split but train that has any, in order."""
    plain = list(map(_plain, texts))
    trained = {text for text, split in zip(plain, splits, strict=True) if split == TRAIN}
    found = []
    for split in sorted(set(splits) - {TRAIN, UNUSED_DEV}):
        of_split = [(text, said) for text, said, own in zip(plain, texts, splits, strict=True) if own == split]
        known = [said for text, said in of_split if text in trained]
        if known:
            found.append(Leak(split, len(known), len(of_split), tuple(dict.fromkeys(known))[:_SHOWN]))
    return found


def _plain(text: str) -> str:
    """Letters, marks and digits alone, in one case."""
    return "".join(character for character in text.casefold() if unicodedata.category(character)[0] in "LMN")
