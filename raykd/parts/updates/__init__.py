"""What besides the student changes while it trains, one file each."""

from raykd.parts.part import Part
from raykd.parts.updates.update import UPDATES_ROOM as ROOM

PARTS: tuple[type[Part], ...] = ()

__all__ = ["PARTS", "ROOM"]
