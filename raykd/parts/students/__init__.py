"""Models that learn, one file each."""

from raykd.parts.students import experts, layer_copy, lora, pretrained, scratch, shrinking
from raykd.parts.students.student import STUDENTS_ROOM as ROOM

PARTS = (layer_copy, pretrained, scratch, experts, lora, shrinking)

__all__ = ["PARTS", "ROOM"]
