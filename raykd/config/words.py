"""What a key may hold, its default and its docstring, in the words of one who writes YAML."""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from raykd.config.base import Mark, Section
from raykd.config.schedule import ScheduleConfig
from raykd.config.shorthand import ONE_OR_MORE

_PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_PATHS = {
    Mark.PATH: "path",
    Mark.PATH_IF_THERE: "path or name",
    Mark.WHISPER: "hub id, folder or config",
    Mark.MLM: "folder or config",
}
_LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def holding(field: FieldInfo) -> str:
    """What may stand at a key, in words."""
    marks = [mark for mark in field.metadata if isinstance(mark, Mark)]
    if ONE_OR_MORE in field.metadata:
        return f"one or a list of {_plural(_words(get_args(field.annotation)[0]))}"
    if Mark.PARTS_FILES in marks:
        return "list of paths"
    words = _words(field.annotation, field.metadata)
    named = [_PATHS[mark] for mark in marks if mark in _PATHS]
    return words.replace("text", named[0], 1) if named else words


def key_text(section: type[Section], name: str) -> str:
    """The docstring below a key of a section; empty where it has none. Read when it is asked for: no run needs it."""
    own = next(part for part in section.__mro__ if name in inspect.get_annotations(part))
    return _key_texts(own).get(name, "")


@lru_cache
def _key_texts(section: type) -> dict[str, str]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    except (OSError, TypeError):  # a class that no file defines
        return {}
    assert isinstance(tree, ast.ClassDef)
    return {
        key.target.id: text.value.value
        for key, text in pairwise(tree.body)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def name_of(section: type[Section], tag: str) -> str:
    """The one value that a section's tag may have; empty where the key is no tag."""
    values = get_args(section.model_fields[tag].annotation) if tag in section.model_fields else ()
    return str(values[0]) if len(values) == 1 else ""


def written(value: Any) -> str:
    """A default in YAML, on one line. Of sections only their tag and what is not their own default is said."""
    if isinstance(value, Section):
        kind = type(value)
        inner = {key: item for key, item in value if name_of(kind, key) or item != kind.model_fields[key].default}
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in inner.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def described(documented: Any) -> str:
    """A docstring as one reads it beside YAML: paragraphs of one line each, lists as they are."""
    text = inspect.getdoc(documented) if isinstance(documented, type) else inspect.cleandoc(documented or "")
    paragraphs = re.split(r"\n\n", text or "")
    joined = [re.sub(r"\n(?!- )\s*", " ", paragraph) for paragraph in paragraphs]
    return re.sub(r"\bNone\b", "null", "\n\n".join(joined))


def _words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _words(get_args(annotation)[0], get_args(annotation)[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in {Union, UnionType}:
        return _any_of(get_args(annotation), metadata)
    if origin is tuple:
        first, *rest = get_args(annotation)
        number = f"{len(rest) + 1} " if rest and rest[-1] is not Ellipsis else ""
        return f"list of {number}{_plural(_words(first))}"
    if origin is dict:
        return f"mapping of names to {_plural(_words(get_args(annotation)[1]))}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "schedule" if annotation is ScheduleConfig else "section"
    return _PLAIN.get(annotation, "anything") + _limits(metadata)


def _any_of(branches: Sequence[Any], metadata: Sequence[Any]) -> str:
    words = dict.fromkeys(_words(branch, metadata) for branch in branches if branch is not NoneType)
    return " or ".join([*words, *(["null"] if NoneType in branches else [])])


def _plural(words: str) -> str:
    """`whole number (at least 1)` -> `whole numbers (at least 1)`."""
    noun, bracket, limits = words.partition(" (")
    return (
        words
        if noun.startswith("`") or noun in {"text", "true or false", "anything"} or noun.startswith("mapping")
        else f"{noun}s{bracket}{limits}"
    )


def _limits(metadata: Sequence[Any]) -> str:
    """` (at least 1)`, from the limits among a field's metadata; those within a `Field` too."""
    items = [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
    names = ("gt", "ge", "lt", "le", "multiple_of")
    limits = {name: getattr(item, name) for item in items for name in names if getattr(item, name, None) is not None}
    if "ge" in limits and "le" in limits:
        said = [f"{limits['ge']:g} to {limits['le']:g}"]
    else:
        said = [f"{word} {limits[name]:g}" for name, word in _LIMITS.items() if name in limits]
    if "multiple_of" in limits:
        said.append("whole" if limits["multiple_of"] == 1 else f"a multiple of {limits['multiple_of']:g}")
    return f" ({' and '.join(said)})" if said else ""
