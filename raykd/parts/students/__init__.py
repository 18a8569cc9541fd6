"""Models that learn, one file each."""

from raykd.parts.students import layer_copy, pretrained, scratch
from raykd.parts.students.student import STUDENTS_ROOM as ROOM

PARTS = (layer_copy, pretrained, scratch)

__all__ = ["PARTS", "ROOM"]
