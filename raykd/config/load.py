"""YAML and `key=value` overrides in, a checked `Config` out; every mistake becomes one line that names its key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from raykd.config.base import Section
from raykd.config.root import Config
from raykd.errors import UserError

SectionT = TypeVar("SectionT", bound=Section)


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and apply overrides such as `train.lr=1e-4`.

    Raises:
        UserError: the file cannot be read, or a key is unknown or its value impossible; one line for each mistake.
    """
    tree = read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    teacher = tree.get("teacher")
    if isinstance(teacher, dict) and isinstance(teacher.get("config"), str):
        beside = Path(path).parent / teacher["config"]
        teacher["config"] = str(beside if beside.exists() else teacher["config"])
    return parse(Config, tree, path)


def read_yaml(path: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}); give an existing YAML file") from None
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected `key: value` lines at the top level")
    return tree


def parse(section: type[SectionT], tree: dict[str, Any], origin: str) -> SectionT:
    """Check a mapping against a section. `origin` names it in messages.

    Raises:
        UserError: one line for each unknown key or impossible value.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        lines = [f"{origin}: {_describe(item, tree)}" for item in error.errors(include_url=False)]
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def dump_yaml(section: Section) -> str:
    """The resolved section as YAML that `load_config` reads back."""
    return yaml.safe_dump(section.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override}: an override has the form key=value, such as train.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{override}: the value is not valid YAML; quote it") from None
    node = tree
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise UserError(f"{override}: {'.'.join(parents[: depth + 1])} is not a section, so {last} cannot be set in it")
        node = child
    node[last] = _number(value)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; users mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _describe(item: Any, tree: dict[str, Any]) -> str:
    keys = [part for part in item["loc"] if _is_key(part, item["loc"], tree)]
    path = ".".join(str(part) for part in keys) or "config"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key; remove it or see the keys of this section in the README"
    if item["type"] == "missing":
        return f"{path}: required, but not given"
    message = item["msg"].removeprefix("Value error, ")
    if "`" in message and item["type"] == "value_error":
        return f"{path}: {message}"
    return f"{path}: {message[:1].lower()}{message[1:]} (got {_short(item['input'])})"


def _is_key(part: Any, location: tuple[Any, ...], tree: Any) -> bool:
    """False for the union and discriminator tags that pydantic puts between the keys."""
    node = tree
    for step in location:
        present = isinstance(node, dict) and step in node
        if step is part or step == part:
            tag = isinstance(step, str) and not present and step != location[-1]
            return not tag and not str(step).startswith(("function-", "constrained-"))
        if present:
            node = node[step]
        elif isinstance(step, int) and isinstance(node, list) and step < len(node):
            node = node[step]
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _reason(error: Exception) -> str:
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(getattr(error, "strerror", error))
