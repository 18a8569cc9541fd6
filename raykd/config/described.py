"""The config tree in words: its sections by their paths, and their keys. `reference` and `raykd config` show it."""

import re
from dataclasses import dataclass
from typing import get_origin

from pydantic.fields import FieldInfo

from raykd.config.base import Mark, Section, marks_of, types_in
from raykd.config.compare import CompareConfig
from raykd.config.root import Config, MlmRunConfig
from raykd.config.schedule import ScheduleConfig
from raykd.config.tune import SweepConfig
from raykd.config.words import described, holding, key_text, name_of, written
from raykd.parts.part import Part

SCHEDULE = "schedule"
"""Name of the section that may stand wherever a weight or temperature does."""
Asked = tuple[type[Section], ...]
"""What a key asks for: a section, a room's base class, or the members of a union."""


@dataclass(frozen=True)
class Key:
    """One key of a section."""

    name: str
    holds: str
    """What may stand there, in words."""
    default: str
    """As YAML has it; `required` without one."""
    text: str
    """What it is for."""
    free: bool
    """Whether a resumed run may have another value."""
    asked: Asked
    """Empty for numbers, text and the like."""


@dataclass(frozen=True)
class Kind:
    """One of the sections that may stand at a path."""

    section: type[Section]
    name: str
    """Value of the tag; empty where there is no other kind."""
    text: str
    keys: tuple[Key, ...]
    """Without the tag, and without those that all kinds share."""


@dataclass(frozen=True)
class Place:
    """A path of the config, such as `train`, `data.source[]` or `objective.targets.NAME`, and what may stand there."""

    path: str
    asked: Asked
    text: str
    short: str
    """Short forms, in words; empty where there are none."""
    tag: str
    """Key that tells the kinds apart; empty where there is one only."""
    shared: tuple[Key, ...]
    """Keys of every kind."""
    kinds: tuple[Kind, ...]
    free: bool


def places(root: type[Section]) -> tuple[Place, ...]:
    """The sections of a config, its top level (path ``) first, each once, in the order of the keys that hold them."""
    found: dict[Asked, tuple[str, bool]] = {(root,): ("", False)}
    waiting: list[Asked] = [(root,)]
    while waiting:
        asked = waiting.pop(0)
        above, free = found[asked]
        for section in kinds_of(asked):
            for name, field in section.model_fields.items():
                inner = _asked(field)
                if inner and inner not in found and not _has_a_place(inner, at_top=not above):
                    path = f"{above}.{name}" if above else name
                    found[inner] = (path + _steps(field), free or Mark.FREE in marks_of(section, name))
                    waiting.append(inner)
    schedule: Asked = (ScheduleConfig,)
    has_schedules = found.pop(schedule, None) is not None
    ordered = sorted(found.items(), key=lambda entry: _order(root, entry[1][0]))
    last = [_place(schedule, SCHEDULE, free=False)] if has_schedules else []
    return (*(_place(asked, path, free) for asked, (path, free) in ordered), *last)


def kinds_of(asked: Asked) -> tuple[type[Section], ...]:
    """The sections that may stand where these are asked for: of a room, all its parts."""
    return tuple(choice for section in asked for choice in section.choices())


def _place(asked: Asked, path: str, free: bool) -> Place:
    base, tag = asked[0], _tag_of(asked)
    shared = [name for name in base.model_fields if name != tag] if _is_room(base) else []
    kinds = tuple(_kind(section, tag, base if _is_room(base) else None) for section in kinds_of(asked))
    short = described(base.written_out.__doc__) if issubclass(base, Part) and "written_out" in base.__dict__ else ""
    return Place(
        path=path,
        asked=asked,
        text=_about(base) if len(asked) == 1 else "",
        short=short,
        tag=tag,
        shared=tuple(_key(base, name) for name in shared),
        kinds=kinds,
        free=free,
    )


def _about(section: type[Section]) -> str:
    """The docstring; of a room's base class, which goes on for those who derive from it, the first sentence."""
    text = described(section)
    return text.partition(". ")[0].rstrip(".") + "." if _is_room(section) else text


def _kind(section: type[Section], tag: str, base: type[Section] | None) -> Kind:
    own = [name for name in section.model_fields if not name_of(section, name)]
    names = [name for name in own if not (base and _same_key(section, base, name))]
    return Kind(section, name_of(section, tag), described(section), tuple(_key(section, key) for key in names))


def _same_key(section: type[Section], base: type[Section], name: str) -> bool:
    if name not in base.model_fields:
        return False
    ours, theirs = section.model_fields[name], base.model_fields[name]
    return ours.default == theirs.default and key_text(section, name) == key_text(base, name)


def _key(section: type[Section], name: str) -> Key:
    field = section.model_fields[name]
    inner = _asked(field)
    text = key_text(section, name) or (described(inner[0]).partition("\n\n")[0] if inner else "")
    default = "required" if field.is_required() else written(field.get_default(call_default_factory=True))
    return Key(name, holding(field), default, described(text), Mark.FREE in marks_of(section, name), inner)


def _tag_of(asked: Asked) -> str:
    """The key that tells the sections apart that may stand where these are asked for."""
    if _is_room(asked[0]):
        assert issubclass(asked[0], Part)
        return asked[0].room.tag
    return "kind" if len(asked) > 1 else ""


def _is_room(section: type[Section]) -> bool:
    return issubclass(section, Part) and section.room.base is section


def _asked(field: FieldInfo) -> Asked:
    """The sections that a field asks for."""
    kinds = [kind for kind in types_in(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
    return tuple(dict.fromkeys(kinds))


def _has_a_place(asked: Asked, at_top: bool) -> bool:
    """A single part within another one is described in its room."""
    return not at_top and issubclass(asked[0], Part) and not _is_room(asked[0])


def _steps(field: FieldInfo) -> str:
    """How a path goes on within a list or a mapping."""
    origin = get_origin(field.annotation)
    return "[]" if origin is tuple else ".NAME" if origin is dict else ""


def _order(root: type[Section], path: str) -> int:
    """Sections below a key come after it and before the next one."""
    top = re.split(r"[.\[]", path)[0]
    return list(root.model_fields).index(top) if top else -1


ROOTS: dict[str, type[Section]] = {
    "raykd.distill": Config,
    "raykd.train_mlm": MlmRunConfig,
    "raykd.compare": CompareConfig,
    "raykd.tune": SweepConfig,
}
"""The kinds of config, by the command that runs them."""


def own_places(root: type[Section]) -> tuple[Place, ...]:
    """`places`; of a comparison those that no other kind of config has."""
    found = places(root)
    return tuple(place for place in found if place.path in {"", "tests.NAME"}) if root is CompareConfig else found
