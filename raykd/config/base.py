"""The base of every config section: frozen, typed, and closed to unknown keys; and what is said of a key beside its type."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class Mark(Enum):
    """What is said of a key beside its type, as `Annotated[str, Mark.PATH]`."""

    FREE = "may differ when a run is resumed: it does not change what is trained on what"
    PATH = "a path, relative to the current folder"
    PATH_IF_THERE = "a path where something lies there, else a name such as a hub id"
    WHISPER = "a Whisper: hub id, folder, or raykd config (.yaml) whose student it is"
    PARTS_FILES = "files with parts"
    MLM = "a masked language model: folder, or config of `raykd.train_mlm` (.yaml)"

    @property
    def is_model(self) -> bool:
        """Whether the value names a model."""
        return self in {Mark.WHISPER, Mark.MLM}


def trained_by_raykd(model: str) -> bool:
    """Whether a model is named by a raykd config: it is trained first, once, and cached."""
    return model.endswith((".yaml", ".yml"))


_LARGEST_WHOLE = 2**63 - 1
_LARGEST = 3.4028235e38
_UNPRINTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST_NAME = 200
"""Of what names a folder, in characters: file systems take 255 bytes, and numbers are added."""


def _names_a_folder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"must be letters, digits, `.`, `_` and `-`, with a letter or digit first (got {name!r})")
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"must be at most {_LONGEST_NAME} characters long (got {len(name)})")
    return name


FolderName = Annotated[str, AfterValidator(_names_a_folder)]
"""What names a folder as well."""


class Section(BaseModel):
    """A part of the config tree. Unknown keys and impossible values are refused with their path (`config.mistakes`)."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        str_min_length=1,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """Python counts True as 1; a user who writes `steps: true` made a mistake. Nor is any number or text too strange to be
        stored: float32, 64-bit integers, C's strings and terminals have their limits.
        """
        for key, value in values.items() if isinstance(values, dict) else ():
            for item in value if isinstance(value, list | tuple) else (value,):
                strange = _strange(item)
                if strange:
                    raise wrong(strange, key)
            if isinstance(value, bool) and key in cls.model_fields:
                types = set(types_in(cls.model_fields[key].annotation))
                if types & {int, float} and bool not in types:
                    raise wrong(f"must be a number (got {str(value).lower()})", key)
        return values

    @classmethod
    def choices(cls) -> tuple[type["Section"], ...]:
        """The sections that may stand where this one is asked for: itself, or each part of a room (`parts.part`)."""
        return (cls,)


def _strange(value: Any) -> str:
    """Why a value cannot be any key's; empty where it may be."""
    if isinstance(value, str) and (found := _UNPRINTED.search(value)):
        return f"must not hold the character {found[0]!a}"
    if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:
        return f"must be at most {_LARGEST_WHOLE}, the largest whole number of 64 bits"
    if isinstance(value, float) and _LARGEST < abs(value) < math.inf:
        return f"must be at most {_LARGEST:.3g}, the largest number of float32 (got {value:g})"
    return ""


def types_in(annotation: Any) -> Iterator[Any]:
    """The plain types of an annotation, through unions, tuples and the like; a literal counts as its values' types."""
    if get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif parts := get_args(annotation):
        for part in parts:
            yield from types_in(part)
    else:
        yield annotation


def wrong(message: str, *keys: str | int) -> ValidationError:
    """To raise from a validator of a whole section: what is wrong with the value at `keys` below that section."""
    kind = PydanticCustomError("wrong", "{message}", {"message": message})
    return ValidationError.from_exception_data("config", [InitErrorDetails(type=kind, loc=keys, input=None)])


def branch(name: str) -> str:
    """In the place of a mistake: which part a section was read as. Beside it there may be a key of the same name."""
    return f"<{name}>"


def branch_of(step: str | int) -> str | None:
    """The name that `branch` was given; None for a key."""
    return step[1:-1] if isinstance(step, str) and step.startswith("<") and step.endswith(">") else None


SectionT = TypeVar("SectionT", bound=Section)
Change = Callable[[str, Any, tuple[Mark, ...]], Any]
"""(key path such as `teacher.model`, value, its marks) -> the value that takes its place."""


def mapped(section: SectionT, change: Change, above: str = "") -> SectionT:
    """The section with every marked value in it replaced by `change` of it."""
    changed = {}
    for key, before in section:
        path, marks = above + key, marks_of(type(section), key)
        value = _changed(change, path, before, marks) if marks and before is not None else before
        value = _mapped_inside(value, change, path)
        if value != before:  # the others stay as they were given: a copy would count every key as set by the user
            changed[key] = value
    return section.model_copy(update=changed) if changed else section


def _changed(change: Change, path: str, value: Any, marks: tuple[Mark, ...]) -> Any:
    """Of a list, each item is a marked value."""
    if isinstance(value, tuple):
        return tuple(change(f"{path}[{number}]", item, marks) for number, item in enumerate(value))
    return change(path, value, marks)


def _mapped_inside(value: Any, change: Change, path: str) -> Any:
    if isinstance(value, Section):
        return mapped(value, change, f"{path}.")
    if isinstance(value, tuple):
        return tuple(_mapped_inside(item, change, f"{path}[{number}]") for number, item in enumerate(value))
    if isinstance(value, Mapping):
        return {key: _mapped_inside(item, change, f"{path}.{key}") for key, item in value.items()}
    return value


def marked(section: Section) -> list[tuple[str, Any, tuple[Mark, ...]]]:
    """(key path, value, marks) of every marked value in a section that is not None."""
    found: list[tuple[str, Any, tuple[Mark, ...]]] = []

    def note(path: str, value: Any, marks: tuple[Mark, ...]) -> Any:
        found.append((path, value, marks))
        return value

    mapped(section, note)
    return found


def marks_of(section: type[Section], key: str) -> tuple[Mark, ...]:
    """The marks of a key."""
    return tuple(mark for mark in section.model_fields[key].metadata if isinstance(mark, Mark))
