"""Plain text files, as they are or compressed (gzip, xz), read as streams."""

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase

from raykd.data.files import SourceFile, connect, list_files, read_error
from raykd.data.text_sources.part import MAX_LINE_BYTES, RawLine, TextPart
from raykd.errors import UserError

SUFFIXES = (".txt", ".txt.gz", ".txt.xz")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FilePart:
    """One file; what its name ends with says how it is compressed."""

    file: SourceFile

    @property
    def name(self) -> str:
        """Its full path."""
        return self.file.path

    def lines(self) -> Iterator[RawLine]:
        """The lines, undecoded."""
        try:
            with _open(self.file) as stream:
                yield from enumerate(bounded_lines(stream), start=1)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            reason = "it breaks off" if isinstance(error, EOFError) else str(error)
            raise UserError(f"{self.name}: cannot be unpacked to its end ({reason}); get the file again") from None
        except OSError as error:
            raise read_error(self.name, error) from None


def file_parts(path: str) -> list[TextPart]:
    """One part a file, sorted by name.

    Raises:
        UserError: no such file, no text file in the folder, or an empty one.
    """
    files = list_files(path, SUFFIXES, "text file", key="text.source")
    for file in files:
        if file.stamp.startswith("0:"):
            raise UserError(f"{file.path}: is empty; remove it or get it again")
    return [FilePart(file) for file in files]


def bounded_lines(stream: BufferedIOBase) -> Iterator[bytes | None]:
    """Lines without their ends; None for one longer than `MAX_LINE_BYTES`, of which no more than that is ever in memory."""
    rest = b""
    dropping = False
    while chunk := stream.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if not dropping:
                yield line if len(line) <= MAX_LINE_BYTES else None
            dropping = False
        if len(rest) > MAX_LINE_BYTES:
            if not dropping:
                yield None
            rest, dropping = b"", True
        elif dropping:
            rest = b""
    if rest and not dropping:
        yield rest


@contextmanager
def _open(file: SourceFile) -> Iterator[BufferedIOBase]:
    filesystem, inner = connect(file.path)
    with filesystem.open_input_stream(inner, compression=None, buffer_size=_CHUNK_BYTES) as stream:
        if file.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield unpacked
        elif file.name.lower().endswith(".xz"):
            with lzma.LZMAFile(stream) as unpacked:
                yield unpacked
        else:
            yield stream
