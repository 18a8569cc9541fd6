"""Manifests in text: JSONL, and CSV or TSV with a header line.

The driver walks once over the file to cut it at row boundaries; the parts are parsed where they are read, so a manifest of
millions of rows costs the driver a list of offsets.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from raykd.data.files import SourceFile, connect, read_error
from raykd.data.sources.part import PART_ROWS, Part
from raykd.data.utterances import NOT_JSON, Origin, utterance
from raykd.errors import UserError

_SAMPLE_ROWS = 20


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written."""

    columns: tuple[str, ...]
    delimiter: str

    def records(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Fields of each record. Tab-separated files have no quoting, as in Common Voice: a quote is a letter there."""
        if self.delimiter == "\t":
            return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self.delimiter)


@dataclass(frozen=True)
class TextPart:
    """A range of rows of a text manifest."""

    file: SourceFile
    origin: Origin
    offset: int
    n_bytes: int
    first_line: int
    """Number of the first line (JSONL) or record (CSV, TSV; the header is 1) in its file."""
    dialect: Dialect | None = None
    """None: JSONL."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows of the range."""
        with _open(self.file) as stream:
            stream.seek(self.offset)
            lines = io.BytesIO(stream.read(self.n_bytes))
        yield from self._json_rows(lines) if self.dialect is None else self._delimited_rows(lines, self.dialect)

    def _json_rows(self, lines: io.BytesIO) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, self.first_line):
            if not line.strip():
                continue
            fields = _json_object(line)
            problem = None if fields is not None else NOT_JSON
            yield self._utterance(fields or {}, number, problem)

    def _delimited_rows(self, lines: io.BytesIO, dialect: Dialect) -> Iterator[dict[str, Any]]:
        for number, record in enumerate(dialect.records(_decoded(lines)), self.first_line):
            if not record:
                continue
            problem = None if len(record) <= len(dialect.columns) else "more fields than columns"
            yield self._utterance(dict(zip(dialect.columns, record, strict=False)), number, problem)

    def _utterance(self, fields: dict[str, Any], number: int, problem: str | None) -> dict[str, Any]:
        return utterance(fields, f"{self.file.name}:{number}", self.origin, problem)


def text_parts(file: SourceFile, origin: Origin) -> list[Part]:
    """A text manifest cut into parts of `PART_ROWS` rows.

    Raises:
        UserError: the file cannot be read, is not what its name says, or has no column for audio or for text.
    """
    try:
        with _open(file) as stream:
            if file.name.lower().endswith((".csv", ".tsv")):
                return _delimited_parts(TextPart(file, origin, 0, 0, 2), stream)
            return _json_parts(TextPart(file, origin, 0, 0, 1), stream)
    except (OSError, pa.ArrowException) as error:
        raise read_error(file.path, error) from None


def require_columns(path: str, columns: list[str], origin: Origin) -> None:
    """Raises a UserError when no column can hold audio, or none the transcript where it is needed."""
    for what, known in (("audio", origin.audio_columns), ("transcript", origin.text_columns)):
        if not set(known) & set(columns) and (what == "audio" or origin.needs_text):
            found = ", ".join(columns) or "none"
            wanted = f"name it {known[0]}" if len(known) == 1 else f"name it one of {', '.join(known)}"
            raise UserError(f"{path}: no {what} column; {wanted} (columns found: {found})")


def _json_parts(empty: TextPart, stream: io.BufferedReader) -> list[Part]:
    columns: dict[str, None] = {}
    sampled = 0
    for line in stream:
        if not line.strip():
            continue
        if not sampled and line.strip().startswith(b"["):
            raise UserError(f"{empty.file.path}: a JSON array; write one JSON object a line (JSONL)")
        fields = _json_object(line)
        columns.update(dict.fromkeys(fields or ()))
        sampled += 1
        if sampled == _SAMPLE_ROWS:
            break
    if not sampled:
        raise UserError(f"{empty.file.path}: has no rows; give a manifest with one utterance a row")
    if not columns:
        raise UserError(f"{empty.file.path}: not JSONL; write one JSON object a line")
    require_columns(empty.file.path, list(columns), empty.origin)
    stream.seek(0)
    counter = _Lines(stream)
    return _cut(empty, counter, iter(counter))


def _delimited_parts(empty: TextPart, stream: io.BufferedReader) -> list[Part]:
    counter = _Lines(stream)
    header = next(counter, b"").decode("utf-8-sig", "surrogateescape").rstrip("\r\n")
    delimiter = "\t" if empty.file.name.lower().endswith(".tsv") else max(",;\t", key=header.count)
    names = next(Dialect((), delimiter).records(iter([header])), [])
    dialect = Dialect(tuple(name.strip() for name in names), delimiter)
    require_columns(empty.file.path, list(dialect.columns), empty.origin)
    try:
        parts = _cut(replace(empty, dialect=dialect, offset=counter.offset), counter, dialect.records(_decoded(counter)))
    except csv.Error as error:
        raise UserError(f"{empty.file.path}: not readable as CSV ({error}); look for an unbalanced quote") from None
    if not parts:
        raise UserError(f"{empty.file.path}: has a header but no rows; give a manifest with one utterance a row")
    return parts


class _Lines:
    """Lines of a stream, and the offset behind the last one taken."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.offset = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        return line


def _cut(empty: TextPart, counter: _Lines, records: Iterator[Any]) -> list[Part]:
    """Parts of `PART_ROWS` records; a reader of records takes whole records, so the counter then stands at a boundary."""
    parts: list[Part] = []
    offset, first = empty.offset, empty.first_line
    number = first
    for number, _ in enumerate(records, empty.first_line + 1):
        if number - first == PART_ROWS:
            parts.append(replace(empty, offset=offset, n_bytes=counter.offset - offset, first_line=first))
            offset, first = counter.offset, number
    if number > first:
        parts.append(replace(empty, offset=offset, n_bytes=counter.offset - offset, first_line=first))
    return parts


def _open(file: SourceFile) -> io.BufferedReader:
    filesystem, inner = connect(file.path)
    return io.BufferedReader(filesystem.open_input_file(inner), 1 << 20)


def _decoded(lines: Iterator[bytes] | io.BytesIO | _Lines) -> Iterator[str]:
    return (line.decode("utf-8", "surrogateescape") for line in lines)


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
