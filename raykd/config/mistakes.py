"""What a section refused, a line for each mistake: the key path as the user wrote it, what is wrong, what is allowed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from raykd.config.base import Section, branch_of, types_in

Path = tuple[str | int, ...]

_TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping of `key: value`",
    "model_type": "a section of `key: value`",
    "model_attributes_type": "a section of `key: value`",
}
_LIMITS = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
    "string_too_short": "text that is not empty",
}


def mistakes(error: ValidationError, section: type[Section], tree: Any) -> list[tuple[str, str]]:
    """(key path, what is wrong with it) of everything `section` refused in `tree`, what the user wrote."""
    found: dict[Path, list[Any]] = {}
    for item in error.errors(include_url=False):
        if item["type"] != "too_short" or len(item["input"]) < item["ctx"]["min_length"]:  # else only good entries were counted
            found.setdefault(_written_path(item, tree), []).append(item)
    # An error above another one comes from a branch of a union that the user did not mean.
    below = {path[:length] for path in found for length in range(1, len(path))}
    return [(written(path), _complaint(path, items, section)) for path, items in found.items() if path not in below]


def written(path: Path) -> str:
    """The path as one writes it: `objective.terms[1].weight`."""
    return re.sub(r"^\.", "", "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path))


def got(value: Any) -> str:
    """A value as the user wrote it, cut to a readable length."""
    text = ""
    for piece in json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value):  # a value of aliases may be long
        text += piece
        if len(text) > 60:
            return text[:57] + "..."
    return text


def _written_path(item: Mapping[str, Any], tree: Any) -> Path:
    """The keys of pydantic's location: what is no step in `tree` names a branch of a union, or a key that was written short."""
    path: list[str | int] = []
    node = tree
    for depth, part in enumerate(item["loc"]):
        steps = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        last = depth == len(item["loc"]) - 1
        inside = part in steps
        absent = item["type"] in {"missing", "wrong"} and last
        if branch_of(part) is not None:
            continue
        if not inside and last and isinstance(node, dict):
            short = _short_form(part, item["input"], node)
            path += short
            absent = absent and not short
        if inside or absent:
            path.append(part if isinstance(node, list) else str(part))
            node = node[part] if inside else None
    if item["type"].startswith("union_tag_"):
        path.append(item["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _short_form(key: Any, value: Any, node: Mapping[str, Any]) -> list[str | int]:
    """How one wrote a key that is not in a section: in a section within it, or its value under another name."""
    for name, inner in node.items():
        if isinstance(inner, dict) and key in inner:
            return [name, key]
    return next(([name] for name, inner in node.items() if inner is value), [])


def _complaint(path: Path, items: Sequence[Any], root: type[Section]) -> str:
    """One sentence for everything that is wrong at one key; a value out of range says more than a wrong type."""
    item = next((item for item in items if item["type"] not in _TYPES), items[0])
    kind, context, value = item["type"], item.get("ctx", {}), item["input"]
    if kind == "extra_forbidden":
        return _unknown_key(path, item["loc"], root)
    if kind == "missing":
        return "required, but not given"
    if kind == "invalid_key":
        return "a key must be text; put it in quotes"
    if kind == "union_tag_not_found":
        tag = context["discriminator"].strip("'")
        fields = [section.model_fields[tag] for section in _sections_at(root, item["loc"])]
        return f"required, but not given; it is {_either([name for field in fields for name in get_args(field.annotation)])}"
    if kind == "union_tag_invalid":
        return f"must be {_either(context['expected_tags'].replace(chr(39), '').split(', '))} (got {got(context['tag'])})"
    if kind in _TYPES:
        allowed = list(dict.fromkeys(_TYPES[item["type"]] for item in items))
        return f"must be {_either(allowed)} (got {got(value)}){_remedy(allowed, value)}"
    if kind in _LIMITS:
        return f"must be {_LIMITS[kind].format(**context).replace(chr(39), '')} (got {got(value)})"
    return item["msg"].removeprefix("Value error, ")


def _remedy(allowed: Sequence[str], value: Any) -> str:
    if allowed == ["text"] and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if allowed == ["a list"] and isinstance(value, str | int | float):
        return f"; write [{value}]"
    return ""


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _unknown_key(path: Path, location: Path, root: type[Section]) -> str:
    sections = _sections_at(root, location[:-1])
    key = str(location[-1])
    keys = sorted({name for section in sections for name in section.model_fields})
    nearest = [written((*path[:-1], near)) for near in get_close_matches(key, keys, n=1)]
    # Another kind of the same section may have the key, and that is no other place.
    here = written(tuple(part for part in path if not isinstance(part, int)))
    elsewhere = [known for known in dict.fromkeys(_key_paths(root)) if known.endswith(f".{key}") and known != here]
    hint = f"did you mean {_either((nearest or elsewhere)[:3])}? " if nearest or elsewhere else ""
    return f"unknown key; {hint}known here: {', '.join(keys)}"


def _sections_at(root: type[Section], location: Path) -> list[type[Section]]:
    """The section at a location of pydantic's, or all that it may be when no tag says which."""
    found = [root]
    steps = iter(location)
    for part in steps:
        if isinstance(part, int):
            continue
        name = branch_of(part) or part
        if len(found) > 1 or name != part:
            found = [section for section in found if name in _names_of(section)]
        elif found and part in found[0].model_fields:
            annotation = found[0].model_fields[part].annotation
            found = list(_sections_in(annotation))
            if get_origin(annotation) is dict:
                next(steps, None)  # a key that the user chose
    return found


def _names_of(section: type[Section]) -> set[Any]:
    """Values of the section's literal fields: among them the one that tells it apart in a union."""
    return {name for field in section.model_fields.values() for name in get_args(field.annotation)}


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    for kind in types_in(annotation):
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from kind.choices()


def _key_paths(section: type[Section], above: str = "") -> Iterator[str]:
    for key, field in section.model_fields.items():
        yield above + key
        for inner in _sections_in(field.annotation):
            yield from _key_paths(inner, f"{above}{key}.")
