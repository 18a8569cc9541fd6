"""What stands in training and in dev or test alike, or twice in one of them. Pure functions over the columns of an index."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raykd.data.splits import UNUSED_DEV

TRAIN = "train"
_SHOWN = 3
_SHOWN_ID = 80


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


@dataclass(frozen=True)
class Doubled:
    """Utterances of a split that sound exactly like an earlier one of it."""

    split: str
    same_text: bool
    """Whether they have its text too."""
    utterances: int
    of: int
    example: tuple[tuple[str, str], tuple[str, str]]
    """Id and text of an earlier one, and of one that sounds so."""

    def __str__(self) -> str:
        (first, said), (second, other) = ((id[-_SHOWN_ID:], text[:60]) for id, text in self.example)
        found = f"{self.utterances} of {self.of} utterances of {self.split} sound exactly like another one"
        if self.same_text:
            return f"{found} and have its text, such as {second!r} and {first!r}: they count twice; name each file once"
        return (
            f"{found} and have another text, such as {second!r} ({other!r}) and {first!r} ({said!r}): parts of a recording "
            "whose start and end were not understood (data.source.columns names their columns), or wrong texts"
        )


def same_sounds(ids: Sequence[str], sounds: Sequence[str], texts: Sequence[str], splits: Sequence[str]) -> list[Doubled]:
    """Of every split that is used, those with the text of the other first."""
    firsts: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, bool], list[tuple[int, int]]] = {}
    for number, key in enumerate(zip(splits, sounds, strict=True)):
        first = firsts.setdefault(key, number)
        if first != number:
            same_text = _plain(texts[first]) == _plain(texts[number])
            found.setdefault((key[0], not same_text), []).append((first, number))
    sizes = Counter(splits)
    return [
        Doubled(split, not other, len(pairs), sizes[split], tuple((ids[at], texts[at]) for at in pairs[0]))  # type: ignore[arg-type]
        for (split, other), pairs in sorted(found.items())
        if split != UNUSED_DEV
    ]


def _plain(text: str) -> str:
    """Letters, marks and digits alone, in one case."""
    return "".join(character for character in text.casefold() if unicodedata.category(character)[0] in "LMN")
