"""What besides the student changes while it trains, one file each."""

from raykd.parts.updates import self_teacher
from raykd.parts.updates.update import UPDATES_ROOM as ROOM

PARTS = (self_teacher,)

__all__ = ["PARTS", "ROOM"]
