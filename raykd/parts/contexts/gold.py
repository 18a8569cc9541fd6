"""The labels as decoder input: teacher forcing."""

from typing import Literal

from raykd.parts.contexts.context import Context


class Gold(Context):
    """The label sequence, shifted."""

    kind: Literal["gold"] = "gold"
