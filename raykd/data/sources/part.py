"""A part of a source: what one Ray read task reads."""

from collections.abc import Iterator
from typing import Any, Protocol


class Part(Protocol):
    """A picklable piece of a source. Parts are listed on the driver and read, in any process, as streams of utterance rows."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows (`raykd.data.utterances.SCHEMA`), in the order of the file; bad rows carry a `problem`."""
        ...


PART_ROWS = 256
"""Rows of a part where rows can be told apart without reading them: enough parts for all cores, few enough for the driver."""
