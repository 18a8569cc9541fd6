"""Sentences from templates: a kind of sentence is a list of templates, a template has slots, a slot has phrases.

All text is as it is spoken: lower case, numbers as words, no punctuation but apostrophes and hyphens inside words. Slots hold
phrases that are already inflected ("do Prahy", "ve tři hodiny"), so a template needs no rules of grammar.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

from num2words import num2words

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


class _Template:
    """A line of text with slots; filling n chooses phrases by the digits of n in the mixed radix of the slots' lengths."""

    def __init__(self, line: str, slots: Mapping[str, tuple[str, ...]]) -> None:
        self._text = line.strip()
        self._slots = {name: slots[name] for name in _SLOT.findall(self._text)}
        self.size = prod(len(slot) for slot in self._slots.values())

    def fill(self, number: int) -> str:
        chosen = {}
        for name, slot in self._slots.items():
            number, choice = divmod(number, len(slot))
            chosen[name] = slot[choice]
        return self._text.format_map(chosen)


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
