"""Files of a source, on local disk or any pyarrow filesystem: listed in a fixed order, named relative to the source's root.

Paths are absolute local paths or URIs. A URI keeps its query (`s3://bucket/folder?region=...`).
"""

import codecs
import os
import posixpath
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pyarrow import fs

from raykd.errors import UserError
from raykd.storage import exists, filesystem_of, is_remote


@dataclass(frozen=True)
class SourceFile:
    """One file: its full path, its name relative to `root`, and a stamp that changes when the file does."""

    path: str
    root: str
    name: str
    stamp: str

    @property
    def folder(self) -> str:
        """The folder that the file lies in."""
        return child(self.root, posixpath.dirname(self.name))


def connect(path: str) -> tuple[fs.FileSystem, str]:
    """`filesystem_of` for names as a listing gives them: a `%` in a bucket's key is itself.

    Raises:
        UserError: the filesystem cannot be reached.
    """
    if not is_remote(path):
        return filesystem_of(path)
    location, _, query = path.partition("?")
    scheme, _, rest = location.partition("://")
    bucket, _, inner = rest.partition("/")
    filesystem, top = filesystem_of(f"{scheme}://{bucket}" + (f"?{query}" if query else ""))
    return filesystem, f"{top.rstrip('/')}/{inner}"


def child(folder: str, name: str) -> str:
    """The path of `name` in a folder; absolute paths and URIs stay as they are."""
    if name.startswith("/") or "://" in name:
        return name
    if not is_remote(folder):
        return posixpath.normpath(posixpath.join(filesystem_of(folder)[1], name))
    location, mark, query = folder.partition("?")
    name = posixpath.normpath(name) if name else ""
    return f"{location.rstrip('/')}/{name}".rstrip("/") + mark + query


def relative_to(root: str, path: str) -> str:
    """A path below `root` without the root; any other path as it is."""
    top = root.partition("?")[0].rstrip("/") + "/"
    location = path.partition("?")[0] if is_remote(path) else path
    return location.removeprefix(top)


def list_files(path: str, suffixes: Sequence[str], what: str, key: str = "data.source") -> list[SourceFile]:
    """The files that a source's path stands for, sorted by name: the file itself, a folder's (recursively), or a glob's.

    In a glob `*` stays within a folder and `**/` crosses folders. Hidden files are left out, and so are links to
    folders that are listed anyway.

    Raises:
        UserError: nothing there, no file with one of the suffixes, or no permission. `what` names what was looked for, `key`
            where the config asked for it.
    """
    base, pattern = _split_glob(path, key)
    filesystem, inner = filesystem_of(base)
    try:
        info = filesystem.get_file_info(inner)
        if info.type == fs.FileType.NotFound:
            raise UserError(f"{key}: {path} does not exist; correct the path")
        if info.type == fs.FileType.File:
            folder, name = _parent(base)
            return [SourceFile(child(folder, name), folder, name, _stamp(info))]
        if inner == "/":
            raise UserError(f"{key}: {path} is all of this machine's files; give the folder that holds the {what}")
        if isinstance(filesystem, fs.LocalFileSystem):
            infos = _below(inner, once=pattern is None)
        else:
            infos = filesystem.get_file_info(fs.FileSelector(inner, recursive=True))
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({_reason(error)}); check the path and its permissions") from None
    root = child(base, "")
    files = []
    for info in infos:
        name = info.path[len(inner.rstrip("/")) + 1 :]
        wanted = pattern.fullmatch(name) if pattern else name.lower().endswith(tuple(suffixes))
        if info.type == fs.FileType.File and wanted and not _is_hidden(name):
            files.append(SourceFile(child(root, name), root, name, _stamp(info)))
    if not files:
        raise UserError(f"{key}: no {what} in {path}; expected {', '.join(suffixes)}")
    return sorted(files, key=lambda file: file.name)


def _below(folder: str, once: bool) -> list[fs.FileInfo]:
    """All that lies in a local folder and the folders that links in it lead to, but not back to a folder on the way: pyarrow
    would go round there. With `once` nothing is listed under two names.
    """
    local = fs.LocalFileSystem()
    infos: list[fs.FileInfo] = []
    left: deque[tuple[str, tuple[str, ...]]] = deque([(folder, ())])
    seen: set[str] = set()
    while left:
        path, above = left.pop()
        real = os.path.realpath(path)
        if (once and real in seen) or any(f"{known}/".startswith(f"{real}/") for known in above):
            continue
        seen.add(real)
        found = sorted(local.get_file_info(fs.FileSelector(path)), key=lambda info: info.path)
        infos += found
        for info in found:
            if info.type == fs.FileType.Directory and not info.base_name.startswith("."):
                # Links come last, so that files have the names of the folders that they lie in.
                (left.appendleft if os.path.islink(info.path) else left.append)((info.path, (*above, real)))
    return infos


def read_lines(path: str) -> list[str]:
    """The lines of a small text file. Bytes that are not UTF-8 stand as surrogates, for `data.utterances` to find.

    Raises:
        UserError: it cannot be read.
    """
    filesystem, inner = connect(path)
    try:
        with filesystem.open_input_stream(inner, compression=None) as stream:
            data = stream.read()
    except OSError as error:
        raise read_error(path, error) from None
    text = str(data.removeprefix(codecs.BOM_UTF8), "utf-8", "surrogateescape")
    ending = "\n" if "\n" in text else "\r"  # not `splitlines`: a line separator within a transcript is a part of it
    return [line.removesuffix("\r") for line in text.removesuffix(ending).split(ending)] if text else []


def read_error(path: str, error: Exception) -> UserError:
    """The message for a file of a source that is there but cannot be read."""
    return UserError(f"{path}: cannot be read ({_reason(error)}); check the file and its permissions")


def _split_glob(path: str, key: str) -> tuple[str, re.Pattern[str] | None]:
    """The folder in front of the first wildcard, and the pattern of names below it; no pattern without wildcards. In the name
    of what is there, such as `corpus [2024-01]`, they are letters."""
    location, mark, query = path.partition("?") if is_remote(path) else (path, "", "")
    wild = _WILD.search(location)
    while wild and (end := location.find("/", wild.end())) > 0 and exists(location[:end] + mark + query):
        wild = _WILD.search(location, end + 1)
    if wild is None or exists(path):
        return path, None
    base, glob = location[: wild.start()], location[wild.start() :]
    tokens = re.findall(r"\*\*/|\*|\[[^\]]+\]|.", glob)
    pattern = "".join(_GLOB.get(token) or (token if len(token) > 1 else re.escape(token)) for token in tokens)
    try:
        return (base or ".") + mark + query, re.compile(pattern)
    except re.error as error:
        raise UserError(f"{key}: {path} is no pattern of files ({error.msg}); correct the path") from None


_WILD = re.compile(r"[^/]*[*\[]")
_GLOB = {"**/": "(?:.*/)?", "*": "[^/]*"}


def _parent(path: str) -> tuple[str, str]:
    if not is_remote(path):
        folder, name = posixpath.split(filesystem_of(path)[1])
        return folder, name
    location, mark, query = path.partition("?")
    folder, _, name = location.rpartition("/")
    return folder + mark + query, name


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def stamp_of(path: str) -> str:
    """What changes when the file does; the same for all files that are not there.

    Raises:
        OSError: its storage cannot be asked.
    """
    filesystem, inner = connect(path)
    return _stamp(filesystem.get_file_info(inner))


def _stamp(info: fs.FileInfo) -> str:
    return f"{info.size}:{info.mtime_ns}"


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:200]
