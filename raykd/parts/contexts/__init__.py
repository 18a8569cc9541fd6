"""What the decoder reads, one file each."""

from raykd.parts.contexts import gold
from raykd.parts.contexts.context import CONTEXTS_ROOM as ROOM

PARTS = (gold,)

__all__ = ["PARTS", "ROOM"]
