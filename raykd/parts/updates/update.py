"""Updates: what besides the student changes while it trains."""

from typing import ClassVar

from raykd.parts.part import Part, Room

UPDATES_ROOM = Room("updates")


class Update(Part):
    """What happens after an optimiser step. `build` gives a `Live` whose `after_update` does it and whose state it has."""

    room: ClassVar = UPDATES_ROOM
    kind: str

    @property
    def settled(self) -> float:
        """Share of training after which the student has its final form: no checkpoint before that is given away."""
        return 0.0
