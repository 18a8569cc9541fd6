"""Manifests in text: JSONL, and CSV or TSV with a header line.

The driver walks once over the file to cut it at row boundaries; the parts are parsed where they are read, so a manifest of
millions of rows costs the driver a list of offsets.
"""

import codecs
import csv
import gzip
import io
import itertools
import json
import posixpath
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from raykd.data.files import SourceFile, child, connect, read_error
from raykd.data.sources.part import PART_ROWS, Part
from raykd.data.utterances import NOT_JSON, Origin, utterance
from raykd.errors import UserError

csv.field_size_limit(1 << 30)
Stream = io.BufferedReader | io.BytesIO
_SAMPLE_ROWS = 20
_MOST_LINES = 100
"""Lines that a quoted field may go over."""
_BUFFER = 1 << 20
_FLEURS = ("number", "file_name", "raw", "transcription", "letters", "num_samples", "gender")
"""Columns of the tables of FLEURS as Google has it; a sentence's number comes once for each of its speakers."""
_VOXPOPULI = ("id", "raw_text", "normalized_text", "speaker_id", "split")
"""First columns of the tables of VoxPopuli, whose recordings lie beside them in folders by year, named by their ids."""
_MOST_UNPACKED = 2 << 30
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_OPEN = re.compile(r' *"(?:[^"]|"")*')
"""A field whose quote does not close."""
_BACKSLASH = re.compile(r'\\([\\"]?)')
_UNPAIRED = "quotes that do not pair up"


class Lines:
    """Lines of a stream, which can be given back, and the offset behind the last one taken."""

    def __init__(self, stream: io.BufferedReader | io.BytesIO) -> None:
        self._stream = stream
        self._back: list[bytes] = []
        self.offset = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._back.pop() if self._back else self._stream.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        return line

    def back(self, lines: Sequence[bytes]) -> None:
        """Give back the last lines taken, in their order."""
        self._back += reversed(lines)
        self.offset -= sum(map(len, lines))


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written."""

    columns: tuple[str, ...]
    delimiter: str

    def fields(self, record: Sequence[str]) -> dict[str, Any]:
        """A record by its columns."""
        fields = dict(zip(self.columns, record, strict=False))
        if self.columns[: len(_VOXPOPULI)] == _VOXPOPULI and "audio" not in fields:
            fields["audio"] = f"{fields['id'][:4]}/{fields['id']}.ogg"
        return fields

    def records(self, lines: Lines) -> Iterator[list[str] | None]:
        """Fields of each record, none for an empty line; None where the quotes leave it open what they are.

        Where quotes do not pair up, or more stands behind the closing one, they are letters: a quotation in a transcript must
        not swallow the rows after it. In a tab-separated file only a field that is quoted as a whole is, and no record that
        goes over lines has a tab in its quotes.
        """
        whole = self._tab_separated if self.delimiter == "\t" else self._fields
        for line in lines:
            text = _decoded(line).rstrip("\r\n")
            if text.strip():
                yield whole(text) or self._over_lines(text, lines, whole) or self._as_they_are(text)
            else:
                yield []

    def _tab_separated(self, text: str) -> list[str] | None:
        fields = text.split("\t")
        if '"' not in text:
            return fields
        return None if any(map(_OPEN.fullmatch, fields)) else [_unquoted(field) for field in fields]

    def _fields(self, text: str) -> list[str] | None:
        """One record by the rules of CSV, quotes in a field being doubled or escaped with a backslash (Spark, MySQL)."""
        if '\\"' in text:
            record = self._parsed(_BACKSLASH.sub(lambda found: found[0] if found[1] else r"\\", text), "\\")
            if record is not None:
                return record
        return self._parsed(text, None)

    def _parsed(self, text: str, escape: str | None) -> list[str] | None:
        lines = io.StringIO(text)
        try:
            (record,) = csv.reader(lines, delimiter=self.delimiter, escapechar=escape, skipinitialspace=True, strict=True)
        except (csv.Error, ValueError):
            return None
        return record

    def _as_they_are(self, text: str) -> list[str] | None:
        """Split at each delimiter outside of fields that are quoted as a whole."""
        fields = text.split(self.delimiter)
        if self.delimiter == "\t" and len(fields) <= len(self.columns):
            return [_unquoted(field) for field in fields]
        pieces = re.findall(rf"( *{_QUOTED.pattern} *|.*?){re.escape(self.delimiter)}", text + self.delimiter)
        lone = [piece for piece in pieces if '"' in piece and not _QUOTED.fullmatch(piece.strip())]
        opens = [piece.lstrip().startswith('"') for piece in lone]
        if True in opens and False in opens[opens.index(True) :]:  # it may be one field with a delimiter in it
            return None
        return [_unquoted(piece) for piece in pieces]

    def _over_lines(self, text: str, lines: Lines, whole: Callable[[str], list[str] | None]) -> list[str] | None:
        """A record whose quoted field goes over several lines; None: it does not, and only one line was taken."""
        if whole(text + '"') is None:  # no quote is open at its end
            return None
        taken: list[bytes] = []
        for line in itertools.islice(lines, _MOST_LINES):
            taken.append(line)
            text += "\n" + _decoded(line).rstrip("\r\n")
            record = whole(text) if b'"' in line else None
            if record is not None and 1 < len(record) <= len(self.columns):
                return record
        lines.back(taken)
        return None


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
        with _open(self.file)[0] as stream:
            stream.seek(self.offset)
            lines = Lines(io.BytesIO(stream.read(self.n_bytes)))
        yield from self._json_rows(lines) if self.dialect is None else self._delimited_rows(lines, self.dialect)

    def first_keys(self) -> tuple[str, ...]:
        """Names in the first rows of JSON."""
        keys: dict[str, None] = {}
        with _open(self.file)[0] as stream:
            for line in itertools.islice(stream, _SAMPLE_ROWS):
                keys.update(dict.fromkeys(_json_object(line) or ()))
        return tuple(keys)

    def _json_rows(self, lines: Lines) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, self.first_line):
            if not line.strip():
                continue
            fields = _json_object(line)
            problem = None if fields is not None else NOT_JSON
            yield self._utterance(fields or {}, number, problem)

    def _delimited_rows(self, lines: Lines, dialect: Dialect) -> Iterator[dict[str, Any]]:
        for number, record in enumerate(dialect.records(lines), self.first_line):
            if record is None:
                yield self._utterance({}, number, _UNPAIRED)
            elif record:
                problem = None if len(record) <= len(dialect.columns) else "more fields than columns"
                yield self._utterance(dialect.fields(record), number, problem)

    def _utterance(self, fields: dict[str, Any], number: int, problem: str | None) -> dict[str, Any]:
        return utterance(fields, f"{self.file.name}:{number}", self.origin, problem)


def text_parts(file: SourceFile, origin: Origin) -> list[Part]:
    """A text manifest cut into parts of `PART_ROWS` rows; one that is compressed, in UTF-16 or with the line ends of old Macs
    is one part, because it is read from its start.

    Raises:
        UserError: the file cannot be read, is not what its name says, or has no column for audio or for text.
    """
    try:
        stream, rewritten = _open(file)
        most = sys.maxsize if rewritten else PART_ROWS
        with stream:
            if _bare(file.name).endswith((".csv", ".tsv")):
                return _delimited_parts(TextPart(file, origin, 0, 0, 2), stream, most)
            return _json_parts(TextPart(file, origin, 0, 0, 1), stream, most)
    except (OSError, EOFError, UnicodeError, zlib.error, pa.ArrowException) as error:
        raise read_error(file.path, error) from None


def require_columns(path: str, columns: list[str], origin: Origin) -> None:
    """Raises a UserError when no column can hold audio, or none the transcript where it is needed."""
    missing = [theirs for theirs, _ in origin.renamed if theirs not in columns]
    if missing:
        raise UserError(
            f"{path}: no column {missing[0]}, which data.source.columns names (columns found: {', '.join(columns)})"
        )
    named = {ours for _, ours in origin.renamed}
    for what, known in (("audio", origin.audio_columns), ("transcript", origin.text_columns)):
        if named & set(known):
            continue
        if not set(known) & {origin.name_of(column) for column in columns} and (what == "audio" or origin.needs_text):
            found = ", ".join(columns) or "none"
            wanted = f"name it {known[0]}" if len(known) == 1 else f"name it one of {', '.join(known)}"
            raise UserError(f"{path}: no {what} column; {wanted} (columns found: {found})")


def _json_parts(empty: TextPart, stream: Stream, most: int) -> list[Part]:
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
    counter = Lines(stream)
    return _cut(empty, counter, iter(counter), most)


def _delimited_parts(empty: TextPart, stream: Stream, most: int) -> list[Part]:
    counter = Lines(stream)
    header = _header(counter)
    delimiter, first = _delimiter(empty.file.name, header), empty.first_line
    if header.lower().startswith("sep="):  # how some spreadsheets say it
        delimiter, first, header = header[4:5] or delimiter, first + 1, _header(counter)
    if _is_fleurs(header.split("\t")):  # a release without a line of headings
        stream.seek(0)
        counter, dialect = Lines(stream), Dialect(_FLEURS, "\t")
        folder = child(empty.origin.folder, f"audio/{_bare(posixpath.basename(empty.file.name)).removesuffix('.tsv')}")
        begin = replace(empty, dialect=dialect, origin=replace(empty.origin, folder=folder), first_line=1)
        return _cut(begin, counter, dialect.records(counter), most)
    names = next(Dialect((), delimiter).records(Lines(io.BytesIO(header.encode("utf-8", "surrogateescape")))), None)
    columns = tuple(empty.origin.name_of(name.strip()) for name in names or ())
    dialect = Dialect(columns, delimiter)
    require_columns(empty.file.path, list(dialect.fields(columns)), empty.origin)
    begin = replace(empty, dialect=dialect, offset=counter.offset, first_line=first)
    parts = _cut(begin, counter, dialect.records(counter), most)
    if not parts:
        raise UserError(f"{empty.file.path}: has a header but no rows; give a manifest with one utterance a row")
    return parts


def _is_fleurs(fields: Sequence[str]) -> bool:
    return len(fields) == len(_FLEURS) and fields[0].isdigit() and fields[1].endswith(".wav") and fields[5].isdigit()


def _header(lines: Lines) -> str:
    return next(lines, b"").decode("utf-8-sig", "surrogateescape").rstrip("\r\n")


def _delimiter(name: str, header: str) -> str:
    if _bare(name).endswith(".tsv") and "\t" in header:
        return "\t"
    return max(",;\t|", key=header.count)


def _cut(empty: TextPart, counter: Lines, records: Iterator[Any], most: int) -> list[Part]:
    """Parts of `most` records; a reader of records takes whole records, so the counter then stands at a boundary."""
    parts: list[Part] = []
    offset, first = empty.offset, empty.first_line
    number = first
    for number, _ in enumerate(records, empty.first_line + 1):
        if number - first == most:
            parts.append(replace(empty, offset=offset, n_bytes=counter.offset - offset, first_line=first))
            offset, first = counter.offset, number
    if number > first:
        parts.append(replace(empty, offset=offset, n_bytes=counter.offset - offset, first_line=first))
    return parts


def _open(file: SourceFile) -> tuple[Stream, bool]:
    """The file as UTF-8 with lines that end in a newline, and whether it had to be rewritten for that."""
    filesystem, inner = connect(file.path)
    stream = io.BufferedReader(filesystem.open_input_file(inner), _BUFFER)
    head = stream.peek(_BUFFER)[:_BUFFER]
    compressed = file.name.lower().endswith(".gz")
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    old_mac = b"\r" in head and b"\n" not in head
    if not (compressed or wide or old_mac):
        return stream, False
    with stream:
        data = stream.read()
    data = _unzipped(file.path, data) if compressed else data
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16").encode("utf-8")
    return io.BytesIO(data if b"\n" in data else data.replace(b"\r", b"\n")), True


def _unzipped(path: str, data: bytes) -> bytes:
    """Raises a UserError when a small file holds gigabytes: it is unpacked in memory."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        unpacked = stream.read(_MOST_UNPACKED + 1)
    if len(unpacked) > _MOST_UNPACKED:
        raise UserError(f"{path}: holds more than {_MOST_UNPACKED >> 30} GiB; unpack it, and it is read in parts")
    return unpacked


def _bare(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _unquoted(field: str) -> str:
    """A field that is quoted as a whole, without its quotes."""
    return field.strip()[1:-1].replace('""', '"') if _QUOTED.fullmatch(field.strip()) else field


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
