"""YAML and `key=value` overrides in, a checked `Config` out; every mistake becomes one line that names its key."""

import json
import os
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from raykd import storage
from raykd.config.base import Mark, Section, mapped, trained_by_raykd
from raykd.config.mistakes import got, mistakes
from raykd.config.root import Config, MlmRunConfig, RunConfig
from raykd.config.yaml_text import from_yaml, to_yaml
from raykd.errors import UserError
from raykd.shown import tree_without_secrets

SectionT = TypeVar("SectionT", bound=Section)
RunConfigT = TypeVar("RunConfigT", bound=RunConfig)
PARTS_COPIES = "parts"
"""Folder in a run folder: the files that the run's parts came from."""


def load_config(path: str, overrides: Sequence[str] = (), parts: Sequence[str] = ()) -> Config:
    """Read the config of a distillation and apply overrides such as `train.lr=1e-4`; `parts` are added to its key `parts`.

    Raises:
        UserError: the file cannot be read, or a key is unknown or its value impossible; one line for each mistake.
    """
    if parts:
        files = _files_of(read_yaml(path), overrides)
        overrides = [*overrides, f"parts={json.dumps([*files, *(file for file in parts if file not in files)])}"]
    return read_config_file(Config, path, overrides)


def load_written_config(path: str) -> Config:
    """The config that a run wrote of itself, to be looked at: configs of models that were trained first may be gone by now.

    Raises:
        UserError: as `load_config`.
    """
    tree = read_yaml(path)
    load_parts(tree, path)
    return parse(Config, tree, path)


def load_mlm_config(path: str, overrides: Sequence[str] = ()) -> MlmRunConfig:
    """Read the config of a masked language model's training, as `load_config`."""
    return read_config_file(MlmRunConfig, path, overrides)


def read_config_file(kind: type[RunConfigT], path: str, overrides: Sequence[str] = ()) -> RunConfigT:
    """Read a config of either kind. The configs of models to be trained first are found beside it.

    Raises:
        UserError: as `load_config`.
    """
    return config_from(kind, read_yaml(path), path, overrides)


def config_from(kind: type[RunConfigT], tree: dict[str, Any], path: str, overrides: Sequence[str] = ()) -> RunConfigT:
    """A config from a mapping that was read from `path`.

    Raises:
        UserError: as `load_config`.
    """
    load_parts(tree, path, overrides)
    config = parse(kind, tree, path, overrides)

    def found(key: str, value: Any, marks: tuple[Mark, ...]) -> Any:
        if Mark.PARTS_FILES in marks:
            return _parts_file(path, value)
        is_config = any(mark.is_model for mark in marks) and trained_by_raykd(value)
        return _beside(path, value, key) if is_config else value

    return mapped(config, found)


def load_parts(tree: dict[str, Any], path: str, overrides: Sequence[str] = ()) -> None:
    """Make the parts known that installed packages and the files of the key `parts` bring, before anything names one.

    Raises:
        UserError: a file that is not there, or not on this machine, or whose parts cannot be used.
    """
    from raykd.parts.outside import load_parts_file
    from raykd.parts.rooms import add_installed_parts

    try:
        add_installed_parts()
    except ValueError as error:
        raise UserError(f"installed parts: {error}") from None
    for file in _files_of(tree, overrides):
        load_parts_file(_parts_file(path, file))


def _files_of(tree: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """What the key `parts` names; a value that is no list of texts is told later, with the config's other mistakes."""
    changed = dict(tree)
    for override in overrides:
        if override.startswith("parts="):
            apply_override(changed, override)
    files = changed.get("parts")
    return [file for file in files if isinstance(file, str)] if isinstance(files, list) else []


def _parts_file(config_path: str, file: str) -> str:
    """A file with parts: as it is named, beside the config, or the copy that a run keeps (`runs.keep_parts`).

    Raises:
        UserError: code of another machine, other than that copy.
    """
    folder = os.path.dirname(config_path)
    copy = os.path.join(folder, PARTS_COPIES, os.path.basename(file))
    if storage.is_remote(file) and file != copy:
        raise UserError(f"{file}: parts are read from local files only; give the path of a .py file")
    candidates = [*([] if storage.is_remote(folder) else [file, os.path.join(folder, file)]), copy]
    return next((found for found in candidates if _is_file(found)), file)


def _is_file(path: str) -> bool:
    return storage.exists(path) if "://" in path else os.path.isfile(path)


def read_yaml(path: str) -> dict[str, Any]:
    """The mapping in a YAML file, local or on any storage.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read (not UTF-8 text); give a YAML file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give an existing YAML file") from None
    tree = from_yaml(text, path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must hold `key: value` lines at the top level (got {got(tree)})")
    return tree


def parse(section: type[SectionT], tree: dict[str, Any], origin: str, overrides: Sequence[str] = ()) -> SectionT:
    """Check a mapping with overrides against a section; messages name `origin`, or the command line for what it got wrong.

    Raises:
        UserError: one line for each unknown key or impossible value.
    """
    changed = dict(tree)
    for override in overrides:
        apply_override(changed, override)
    try:
        return section.model_validate(changed)
    except ValidationError as error:
        found = mistakes(error, section, changed)
    in_origin = _mistakes_in(section, tree) if overrides else found
    lines = []
    for path, complaint in found:
        where = origin if (path, complaint) in in_origin else "command line"
        lines.append(": ".join(part for part in (where, path, complaint) if part))
    raise UserError("\n".join(lines))


def _mistakes_in(section: type[Section], tree: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        section.model_validate(tree)
    except ValidationError as error:
        return mistakes(error, section, tree)
    return []


def dump_yaml(section: Section) -> str:
    """The resolved section as YAML that `load_config` reads back; secrets in addresses are `***`."""
    return to_yaml(tree_without_secrets(section.model_dump(mode="json")))


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one override in the tree."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override}: an override has the form key=value, such as train.lr=1e-4")
    set_key(tree, key, from_yaml(text, override), override)


def set_key(tree: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Set a key such as `train.lr` in the tree. Sections on the way are copied: others may share them. `said` names the change.

    Raises:
        UserError: the key leads through something that is no section.
    """
    node = tree
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents, start=1):
        child = node.get(parent)
        if not isinstance(child, dict | None):
            path = ".".join(parents[:depth])
            raise UserError(f"{said}: {path} is {got(child)}, not a section; give the whole of {path}")
        node[parent] = node = dict(child or {})
    node[last] = value


def _beside(config_path: str, path: str, key: str) -> str:
    """A path in a config is relative to the config's folder or, as in the resolved config of a run, to the current one."""
    candidates = (os.path.join(os.path.dirname(config_path), path), path)
    for candidate in candidates:
        if _is_file(candidate):
            return candidate
    raise UserError(f"{config_path}: {key}: no such file: {candidates[0]}")
