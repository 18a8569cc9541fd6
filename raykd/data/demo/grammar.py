"""Sentences from templates: a kind of sentence is a list of templates, a template has slots, a slot has phrases.

All text is as it is spoken: lower case, numbers as words, no punctuation but apostrophes and hyphens inside words. Slots hold
phrases that are already inflected ("do Prahy", "ve tři hodiny"), so a template needs no rules of grammar.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import cached_property
from math import prod

import numpy as np
from num2words import num2words
from numpy.typing import NDArray

KINDS = ("number", "time", "date", "price", "name", "place", "command", "statement")
"""Kinds of sentence in train, dev and test; the same names in all languages."""
UNSEEN_KINDS = ("question", "measure")
"""Kinds that only test_ood has."""
MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_SLOT = re.compile(r"\{(\w+)\}")


class Grammar:
    """The sentences of one language: each kind is a numbered, finite set of distinct sentences."""

    def __init__(self, language: str, slots: Mapping[str, str | Sequence[str]], **kinds: str) -> None:
        """`language` is Whisper's code; a slot is a sequence or comma-separated text; a kind has one template a line."""
        self.language = language
        filled = {name: phrases(slot) if isinstance(slot, str) else tuple(slot) for name, slot in slots.items()}
        self._templates = {
            kind: [_Template(line, filled) for line in text.strip().splitlines()] for kind, text in kinds.items()
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all templates with their slots."""
        content = [(kind, [template.content for template in templates]) for kind, templates in self._templates.items()]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]

    def size(self, kind: str) -> int:
        """Number of sentences of a kind."""
        return sum(template.size for template in self._templates[kind])

    def sentence(self, kind: str, number: int) -> str:
        """The sentence of a kind with that number, from 0 to `size(kind)` - 1.

        Raises:
            IndexError: there are fewer sentences.
        """
        for template in self._templates[kind]:
            if number < template.size:
                return template.fill(number)
            number -= template.size
        raise IndexError(f"{self.language} has {self.size(kind)} sentences of kind {kind}")

    def word_shares(self, kind: str) -> dict[str, float]:
        """Each word of a kind, with the share of the kind's sentences that hold it."""
        counts: Counter[str] = Counter()
        for template in self._templates[kind]:
            counts.update(template.word_counts())
        return {word: count / self.size(kind) for word, count in counts.items()}

    def holding(self, kind: str, words: Set[str]) -> NDArray[np.bool_]:
        """For the number of each sentence of a kind, whether the sentence holds one of the words."""
        return np.concatenate([template.holding(words) for template in self._templates[kind]])


class _Template:
    """A line of text with slots; filling n chooses phrases by the digits of n in the mixed radix of the slots' lengths."""

    def __init__(self, line: str, slots: Mapping[str, tuple[str, ...]]) -> None:
        self._text = line.strip()
        self._slots = {name: slots[name] for name in _SLOT.findall(self._text)}
        self.size = prod(len(slot) for slot in self._slots.values())

    @property
    def content(self) -> tuple[str, dict[str, tuple[str, ...]]]:
        """The line and its slots."""
        return self._text, self._slots

    def fill(self, number: int) -> str:
        chosen = {}
        for name, slot in self._slots.items():
            number, choice = divmod(number, len(slot))
            chosen[name] = slot[choice]
        return self._text.format_map(chosen)

    def word_counts(self) -> dict[str, int]:
        """Each word, with the number of sentences that hold it."""
        in_slots = [Counter(word for phrase in slot for word in phrase) for slot in self._words]
        counts = dict.fromkeys(self._fixed, self.size)
        for word in set().union(*in_slots) - self._fixed:
            without = prod(len(slot) - held[word] for slot, held in zip(self._words, in_slots, strict=True))
            counts[word] = self.size - without
        return counts

    def holding(self, words: Set[str]) -> NDArray[np.bool_]:
        """For the number of each sentence, whether it holds one of the words."""
        holds = np.array([not words.isdisjoint(self._fixed)])
        for slot in self._words:
            by_phrase = np.array([not words.isdisjoint(phrase) for phrase in slot])
            holds = (by_phrase[:, None] | holds[None, :]).ravel()  # a later slot is a higher digit
        return holds

    @cached_property
    def _fixed(self) -> frozenset[str]:
        """Words outside of slots."""
        return frozenset(token for token in self._text.split() if not _SLOT.search(token))

    @cached_property
    def _words(self) -> list[list[frozenset[str]]]:
        """The words that each phrase of each slot gives, with what is glued to the slot ("{minutes}kor")."""
        tokens = {name: [token for token in self._text.split() if f"{{{name}}}" in token] for name in self._slots}
        return [
            [frozenset(word for token in tokens[name] for word in token.format_map({name: phrase}).split()) for phrase in slot]
            for name, slot in self._slots.items()
        ]


def phrases(text: str) -> tuple[str, ...]:
    """The comma-separated phrases of a text."""
    return tuple(" ".join(part.split()) for part in text.split(",") if part.strip())


def cross(*slots: Sequence[str]) -> tuple[str, ...]:
    """Every phrase of the first slot followed by every phrase of the next, and so on."""
    joined: tuple[str, ...] = ("",)
    for slot in slots:
        joined = tuple(f"{head} {phrase}".strip() for head in joined for phrase in slot)
    return joined


def spell(language: str, numbers: Iterable[int], ordinal: bool = False) -> tuple[str, ...]:
    """Numbers as words, by num2words."""
    to = "ordinal" if ordinal else "cardinal"
    return tuple(num2words(number, lang=language, to=to) for number in numbers)


def calendar(say: Callable[[int, int], str]) -> tuple[str, ...]:
    """All 366 dates, each from its day (from 1) and month (from 0)."""
    return tuple(say(day, month) for month, days in enumerate(MONTH_DAYS) for day in range(1, days + 1))
