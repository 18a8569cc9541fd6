"""All rooms, filled from the list of each, and how parts from outside come in."""

from importlib.metadata import entry_points
from types import ModuleType

from raykd.parts import contexts, inputs, recipes, students, targets, terms, updates
from raykd.parts.part import Part, Room, file_of

_LISTS = (terms, targets, recipes, contexts, inputs, students, updates)
ROOMS: tuple[Room, ...] = tuple(room.ROOM for room in _LISTS)
ENTRY_POINTS = "raykd.parts"
"""Group of entry points: each names a module whose parts are known wherever the package is installed."""


def parts_in(module: ModuleType) -> list[type[Part]]:
    """The parts that a file defines: classes of a room that have a name of their own."""
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Part)]
    return [part for part in classes if part.__module__ == module.__name__ and _is_named(part)]


def add_parts(module: ModuleType) -> list[type[Part]]:
    """Let configs name the parts of a file; they are returned.

    Raises:
        ValueError: a name that another part has, or a part without a method that its kind needs.
    """
    found = parts_in(module)
    for part in found:
        if missing := ", ".join(sorted(part.__abstractmethods__)):
            raise ValueError(f"{part.__name__}: lacks {missing}; define what the class that it derives from leaves open")
        part.room.add(part)
    return found


def _is_named(part: type[Part]) -> bool:
    if not hasattr(part, "room") or part.room.base is part:
        return False
    tag = part.model_fields.get(part.room.tag)
    return tag is not None and tag.annotation is not str


for _list in _LISTS:
    for _module in _list.PARTS:
        add_parts(_module)


def add_installed_parts() -> None:
    """The parts of installed packages, once.

    Raises:
        ValueError: a package whose parts cannot be used, by its name.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            add_parts(entry.load())
        except Exception as error:
            raise ValueError(f"{entry.value} (entry point {entry.name} of {ENTRY_POINTS}): {error}") from error


__all__ = ["ROOMS", "add_installed_parts", "add_parts", "file_of", "parts_in"]
