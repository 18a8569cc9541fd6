"""Files on local disk or on any pyarrow filesystem (s3://, gs://), addressed by one path string."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from raykd.errors import UserError


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
        return fs.FileSystem.from_uri(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be opened as a filesystem ({error})") from None


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


def delete_dir(path: str) -> None:
    """Remove a folder and everything in it; nothing happens when it is not there."""
    filesystem, inner = filesystem_of(path)
    if filesystem.get_file_info(inner).type != fs.FileType.NotFound:
        filesystem.delete_dir(inner)


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local folder with the content of `path`: itself when local, else a download that is removed afterwards."""
    if not is_remote(path):
        yield filesystem_of(path)[1]
        return
    filesystem, inner = filesystem_of(path)
    with tempfile.TemporaryDirectory(prefix="raykd-") as folder:
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
    with tempfile.TemporaryDirectory(prefix="raykd-") as folder:
        yield folder
        fs.copy_files(folder, inner, destination_filesystem=filesystem)
