"""Files on local disk or on any pyarrow filesystem (s3://, gs://), addressed by one path string."""

import fcntl
import itertools
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from pyarrow import fs

from raykd.errors import UserError

_SETTLE_S = 1.0
"""Seconds until others that create the same remote file have written theirs (`create_new`)."""
_TEMPORARY, _HELD = "raykd-", "held"
"""Beginning of the names of temporary folders, and the file in them that is locked while they are used."""
_YOUNG_S = 5.0
"""Age of a temporary folder up to which it may not be locked yet."""


def is_remote(path: str) -> bool:
    """True for a URI such as s3://bucket/runs; `file://` counts as local."""
    return "://" in path and not path.startswith("file://")


def filesystem_of(path: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem of a path and the path inside it (absolute for local paths).

    Raises:
        UserError: the URI scheme is unknown or the filesystem cannot be reached.
    """
    if "://" not in path:
        return fs.LocalFileSystem(), os.path.abspath(path)
    try:
        if not is_remote(path):
            return fs.FileSystem.from_uri(path)
        scheme, _, rest = path.partition("://")
        location, _, query = rest.partition("?")
        bucket, _, inner = location.partition("/")
        filesystem, top = _client(scheme, bucket, query)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be opened as a filesystem ({error})") from None
    inner = inner.strip("/") if scheme.startswith("fsspec+") else unquote(inner.strip("/"))  # as `from_uri` does
    return filesystem, f"{top.rstrip('/')}/{inner}" if inner else top


@lru_cache(maxsize=64)
def _client(scheme: str, bucket: str, query: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a bucket and its path in it, made once: a new client looks up region and credentials again."""
    root = bucket or "/"  # without a bucket the path begins at the root, wherever the command was started
    return fs.FileSystem.from_uri(f"{scheme}://{root}" + (f"?{query}" if query else ""))


def absolute(path: str) -> str:
    """The path as it is valid in any working folder."""
    return path if "://" in path else os.path.abspath(path)


def join(path: str, *parts: str) -> str:
    """Path parts joined with `/`, for local paths and URIs alike."""
    return "/".join([path.rstrip("/") or "/", *parts])


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, inner = filesystem_of(path)
    return filesystem.get_file_info(inner).type != fs.FileType.NotFound


def make_dir(path: str) -> None:
    """Create a folder and its parents."""
    filesystem, inner = filesystem_of(path)
    filesystem.create_dir(inner, recursive=True)


def list_dir(path: str) -> list[str]:
    """Names in a folder, sorted; empty when there is no such folder."""
    filesystem, inner = filesystem_of(path)
    infos = filesystem.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return sorted(info.base_name for info in infos)


def read_bytes(path: str) -> bytes:
    """The whole of a file."""
    filesystem, inner = filesystem_of(path)
    if isinstance(filesystem, fs.LocalFileSystem):  # whose own errors say in a word what is wrong
        return Path(inner).read_bytes()
    with filesystem.open_input_stream(inner, compression=None) as stream:
        return stream.read()


def write_bytes(path: str, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part: locally by rename, remotely by one upload."""
    filesystem, inner = filesystem_of(path)
    filesystem.create_dir(os.path.dirname(inner), recursive=True)
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(inner, compression=None) as stream:
            stream.write(data)
        return
    partial = f"{inner}.partial-{uuid.uuid4().hex[:12]}"
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, inner)
    finally:
        Path(partial).unlink(missing_ok=True)


def write_text(path: str, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def create_new(path: str, data: bytes) -> bool:
    """Create a file that is not there yet; False when it is.

    Local: exactly one of several that try succeeds. Remote: the file is written and read back a second later; the last writer's
    content stays, so that the others get False, unless one was held up for longer between looking and writing.
    """
    filesystem, inner = filesystem_of(path)
    if isinstance(filesystem, fs.LocalFileSystem):
        os.makedirs(os.path.dirname(inner), exist_ok=True)
        try:
            with open(inner, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True
    if exists(path):
        return False
    write_bytes(path, data)
    time.sleep(_SETTLE_S)
    return exists(path) and read_bytes(path) == data


def modified_s(path: str) -> float | None:
    """When a file was last written, in seconds since 1970; 0 where the filesystem cannot tell, None when it is not there."""
    filesystem, inner = filesystem_of(path)
    info = filesystem.get_file_info(inner)
    return None if info.type == fs.FileType.NotFound else (info.mtime_ns or 0) / 1e9


def sizes_in(folder: str) -> dict[str, int]:
    """Name and size in bytes of each file in a folder; empty when there is no such folder."""
    filesystem, inner = filesystem_of(folder)
    infos = filesystem.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return {info.base_name: info.size for info in infos if info.type == fs.FileType.File}


def free_bytes(path: str) -> int | None:
    """Room left on the disk of a local path; None for a remote one."""
    if is_remote(path):
        return None
    place = Path(filesystem_of(path)[1])
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free


def delete_file(path: str) -> None:
    """Remove a file; nothing happens when it is not there."""
    filesystem, inner = filesystem_of(path)
    if filesystem.get_file_info(inner).type == fs.FileType.NotFound:
        return
    with suppress(FileNotFoundError):  # another was quicker
        filesystem.delete_file(inner)


def set_aside(folder: str) -> str | None:
    """Move a damaged folder to `<folder>.damaged-N` and return that; a remote one, which would be copied, is deleted."""
    if is_remote(folder):
        delete_dir(folder)
        return None
    for number in itertools.count(1):
        aside = f"{folder.rstrip('/')}.damaged-{number}"
        if not exists(aside):
            break
    try:
        os.rename(filesystem_of(folder)[1], filesystem_of(aside)[1])
    except FileNotFoundError:  # another set it aside
        return None
    return aside


def delete_dir(path: str) -> None:
    """Remove a folder and everything in it; nothing happens when it is not there."""
    filesystem, inner = filesystem_of(path)
    if filesystem.get_file_info(inner).type != fs.FileType.NotFound:
        filesystem.delete_dir(inner)


@contextmanager
def temporary_dir() -> Iterator[str]:
    """A local folder that is removed afterwards, and with it those of processes that were killed before they could do so.

    Who works in one holds a lock, which the system gives back when the process ends, however it does.
    """
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as folder, open(os.path.join(folder, _HELD), "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        inner = os.path.join(folder, "files")
        os.mkdir(inner)
        yield inner


def _remove_abandoned() -> None:
    for note in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*/{_HELD}"):
        with suppress(OSError), note.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError where somebody holds it
            if time.time() - note.stat().st_mtime > _YOUNG_S:
                shutil.rmtree(note.parent)


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local folder with the content of `path`: itself when local, else a download that is removed afterwards."""
    if not is_remote(path):
        yield filesystem_of(path)[1]
        return
    filesystem, inner = filesystem_of(path)
    with temporary_dir() as folder:
        fs.copy_files(inner, folder, source_filesystem=filesystem)
        yield folder


@contextmanager
def local_output(path: str) -> Iterator[str]:
    """A local folder to write into, whose content is at `path` afterwards: itself when local, else uploaded on success."""
    make_dir(path)
    if not is_remote(path):
        yield filesystem_of(path)[1]
        return
    filesystem, inner = filesystem_of(path)
    with temporary_dir() as folder:
        yield folder
        fs.copy_files(folder, inner, destination_filesystem=filesystem)
