"""A part of a text source: what the reader opens one after the other."""

from collections.abc import Iterator
from typing import Protocol

MAX_LINE_BYTES = 1 << 20
"""A longer line is no line of text but a file without line ends; it is rejected, so that memory stays bounded."""

RawLine = tuple[int, bytes | str | None]
"""The number of a line (from 1; of its row in a table) and its content; None when it is longer than `MAX_LINE_BYTES`."""


class TextPart(Protocol):
    """A file or dataset of a text source. Its `repr` changes when its content does: it is part of the corpus's key."""

    @property
    def name(self) -> str:
        """What messages and rejects call it."""
        ...

    def lines(self) -> Iterator[RawLine]:
        """All lines, in order, as a stream.

        Raises:
            UserError: it cannot be read, breaks off, or is damaged.
        """
        ...


def lines_of_value(row: int, value: str | None) -> Iterator[RawLine]:
    """The lines of a value in a text column."""
    for line in (value or "").split("\n"):
        yield row, line if len(line) <= MAX_LINE_BYTES else None
