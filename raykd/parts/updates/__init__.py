"""What besides the student changes while it trains, one file each."""

from raykd.parts.updates import selection, self_teacher, shrinking
from raykd.parts.updates.update import UPDATES_ROOM as ROOM

PARTS = (self_teacher, shrinking, selection)

__all__ = ["PARTS", "ROOM"]
