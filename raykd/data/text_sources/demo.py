"""Sentences of the demo grammars as text."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from raykd.config.text import TextDemoSource
from raykd.data.demo.grammar import KINDS, UNSEEN_KINDS
from raykd.data.demo.held_out import random_of
from raykd.data.demo.languages import GRAMMARS
from raykd.data.text_sources.part import RawLine, TextPart
from raykd.errors import UserError


@dataclass(frozen=True)
class DemoPart:
    """Distinct sentences of one language in random order, the kinds in turn: a pure function of source and language."""

    source: TextDemoSource
    language: str

    @property
    def name(self) -> str:
        """There is one demo text."""
        return "demo"

    def lines(self) -> Iterator[RawLine]:
        """A sentence a line."""
        yield from enumerate(itertools.islice(self._sentences(), self.source.sentences), start=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r}, {self.language!r}, {GRAMMARS[self.language].fingerprint})"

    @property
    def _kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.source.kinds or KINDS))

    def _sentences(self) -> Iterator[str]:
        """All sentences of the kinds, each once."""
        grammar = GRAMMARS[self.language]
        orders = [(kind, iter(self._order(kind, grammar.size(kind)))) for kind in self._kinds]
        while orders:
            for kind, order in list(orders):
                number = next(order, None)
                if number is None:
                    orders.remove((kind, order))
                else:
                    yield grammar.sentence(kind, int(number))

    def _order(self, kind: str, size: int) -> np.ndarray:
        return random_of(f"text{self.source.seed}-{self.language}-{kind}").permutation(size)


def demo_parts(source: TextDemoSource, language: str) -> list[TextPart]:
    """The demo text as one part.

    Raises:
        UserError: there is no grammar of the language, or no such kind.
    """
    known = (*KINDS, *UNSEEN_KINDS)
    if language not in GRAMMARS:
        raise UserError(f"text.language: demo text has no {language}; choose from {', '.join(GRAMMARS)}")
    unknown = [kind for kind in source.kinds if kind not in known]
    if unknown:
        raise UserError(f"text.source.kinds: demo text has no {', '.join(unknown)}; choose from {', '.join(known)}")
    return [DemoPart(source, language)]
