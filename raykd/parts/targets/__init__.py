"""Token distributions that teach, one file each."""

from raykd.parts.targets import cached, learning, mlm, whisper
from raykd.parts.targets.target import TARGETS_ROOM as ROOM

PARTS = (whisper, cached, learning, mlm)

__all__ = ["PARTS", "ROOM"]
