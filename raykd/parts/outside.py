"""Parts from a file: read, made known, and taken along to other processes."""

import hashlib
import linecache
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from raykd import storage
from raykd.config.base import Section
from raykd.errors import UserError
from raykd.parts.part import Part

_PREFIX = "raykd_parts_"
_read: dict[str, "PartsFile"] = {}
"""By module name."""


@dataclass(frozen=True)
class PartsFile:
    """A file of parts: its text goes wherever its parts go, since other machines may not have the file."""

    path: str
    text: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Where it arrives it is run at once, so that whatever follows can be of classes that it defines."""
        return _read_again, (self.path, self.text)

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def label(self) -> str:
        """Its name and the beginning of its hash, for people."""
        return f"{Path(self.path).name} ({self.digest[:8]})"

    @property
    def module_name(self) -> str:
        """The module that the text becomes, in every process."""
        return f"{_PREFIX}{self.digest[:16]}"


def load_parts_file(path: str) -> PartsFile:
    """Read a file of parts and let configs name them.

    Raises:
        UserError: no such file, an error in it, no part in it, or a name that another part has.
    """
    try:
        file = PartsFile(storage.absolute(path), storage.read_bytes(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}); give the path of a .py file with parts") from None
    from raykd.parts.rooms import add_parts

    try:
        found = add_parts(_module(file))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if not found:
        raise UserError(f"{path}: no part in it; derive a class from Term, Target, Recipe, ... and give it a kind of its own")
    return file


def travelling(part: Part) -> tuple[Any, ...] | None:
    """How a part from a file is pickled: with the file; None for any other part."""
    file = _read.get(type(part).__module__)
    return (_arrived, (file, type(part).__qualname__, part.__getstate__())) if file else None


def outside_hash(config: Section) -> str:
    """SHA-256 over the files of all parts in a config that are not raykd's own; empty where all are."""
    texts = {_text_of(type(part)) for part in _sections(config) if not type(part).__module__.startswith("raykd.")}
    return hashlib.sha256("\0".join(sorted(texts)).encode()).hexdigest() if texts else ""


def _text_of(part: type[Section]) -> str:
    file = _read.get(part.__module__)
    return file.text if file else Path(sys.modules[part.__module__].__file__ or "").read_text("utf-8")


def _sections(value: Any) -> Iterator[Section]:
    if isinstance(value, Section):
        yield value
        for _, inner in value:
            yield from _sections(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from _sections(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _sections(inner)


def _read_again(path: str, text: str) -> PartsFile:
    file = PartsFile(path, text)
    _module(file)
    return file


def _arrived(file: PartsFile, name: str, state: dict[str, Any]) -> Part:
    kind = getattr(_module(file), name)
    part = kind.__new__(kind)
    part.__setstate__(state)
    return part


def _module(file: PartsFile) -> ModuleType:
    """The file's module, run once a process."""
    name = file.module_name
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = file.path
    linecache.cache[file.path] = (len(file.text), None, file.text.splitlines(keepends=True), file.path)
    sys.modules[name] = module
    try:
        exec(compile(file.text, file.path, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{file.path}: {_where(error, file.path)}{type(error).__name__}: {error}; mend the file") from None
    _read[name] = file
    return module


def _where(error: Exception, path: str) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    lines = []
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == path:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"line {lines[-1]}: " if lines else ""
