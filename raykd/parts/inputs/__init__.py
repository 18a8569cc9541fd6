"""What is done to the mel, one file each. With none, the models hear it clean."""

from raykd.parts.inputs import clip_window, spec_augment
from raykd.parts.inputs.input import INPUTS_ROOM as ROOM

PARTS = (spec_augment, clip_window)

__all__ = ["PARTS", "ROOM"]
