"""Models that learn, one file each."""

from raykd.parts.students import experts, layer_copy, lora, pretrained, scratch
from raykd.parts.students.student import STUDENTS_ROOM as ROOM

PARTS = (layer_copy, pretrained, scratch, experts, lora)

__all__ = ["PARTS", "ROOM"]
