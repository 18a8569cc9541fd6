"""Manifests in Parquet, audio as paths or embedded (bytes, or `{"bytes", "path"}` as Hugging Face stores it)."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raykd.data.files import SourceFile, connect, read_error
from raykd.data.sources.part import PART_ROWS, Part
from raykd.data.sources.text_manifest import require_columns
from raykd.data.utterances import Origin, utterance
from raykd.errors import UserError

_MAX_SLICES = 8
"""Parts of one row group. Each part reads the group from its start, so more would read much of it in vain."""
_READ_ROWS = 64


@dataclass(frozen=True)
class ParquetPart:
    """A range of rows of one row group."""

    file: SourceFile
    origin: Origin
    row_group: int
    start: int
    """First row within the row group."""
    n_rows: int
    first_row: int
    """Number of that row in its file, from 0."""
    columns: tuple[str, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows of the range; rows of a damaged row group come with that problem, so that they are counted."""
        done = 0
        try:
            for fields in self._fields():
                yield self._utterance(fields, done)
                done += 1
        except (OSError, pa.ArrowException):
            for number in range(done, self.n_rows):
                yield self._utterance({}, number, "unreadable row group")

    def _utterance(self, fields: dict[str, Any], number: int, problem: str | None = None) -> dict[str, Any]:
        return utterance(fields, f"{self.file.name}:{self.first_row + number}", self.origin, problem)

    def _fields(self) -> Iterator[dict[str, Any]]:
        filesystem, inner = connect(self.file.path)
        with filesystem.open_input_file(inner) as stream:
            # A buffer makes pyarrow stream the column chunks; without one it would load each of them whole.
            parquet = pq.ParquetFile(stream, buffer_size=1 << 20)
            passed = 0
            for batch in parquet.iter_batches(_READ_ROWS, row_groups=[self.row_group], columns=list(self.columns)):
                begin, end = max(self.start - passed, 0), min(self.start + self.n_rows - passed, len(batch))
                if begin < end:
                    yield from rows_of(batch.slice(begin, end - begin))
                passed += len(batch)
                if passed >= self.start + self.n_rows:
                    return


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch; bytes in a text that are not UTF-8 stand as surrogates, for `utterance` to find."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        columns = [map(_value, column) for column in batch.columns]
        yield from (dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True))


def _value(cell: pa.Scalar, errors: str = "surrogateescape") -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        if isinstance(cell, pa.DictionaryScalar):
            return _value(cell.value)
        if isinstance(cell, pa.StructScalar):  # whose texts are paths, and none that `utterance` would look at
            return {name: _value(inner, "replace") for name, inner in cell.items()}
        if isinstance(cell, pa.ListScalar):
            return [_value(inner, "replace") for inner in cell.values]
        return cell.as_buffer().to_pybytes().decode("utf-8", errors)


def parquet_parts(files: list[tuple[SourceFile, Origin]]) -> list[Part]:
    """Parquet files cut into parts along their row groups.

    Raises:
        UserError: a file cannot be read, is no Parquet file, or has no column for audio or for text.
    """
    with ThreadPoolExecutor(16) as pool:
        return list(chain.from_iterable(pool.map(lambda item: _parts_of(*item), files)))


def language_names(schema: pa.Schema, origin: Origin) -> tuple[str, ...]:
    """Names behind a numbered language column (`ClassLabel`), which Hugging Face keeps in the metadata of the schema."""
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    column: dict[str, Any] = next((features[name] for name in origin.language_columns if name in features), {})
    return tuple(column.get("names", ()))


def _parts_of(file: SourceFile, origin: Origin) -> list[Part]:
    try:
        filesystem, inner = connect(file.path)
        with filesystem.open_input_file(inner) as stream:
            parquet = pq.ParquetFile(stream)
            metadata, schema = parquet.metadata, parquet.schema_arrow
    except pa.ArrowInvalid:
        raise UserError(f"{file.path}: not a Parquet file; remove it or write it again") from None
    except (OSError, pa.ArrowException) as error:
        raise read_error(file.path, error) from None
    require_columns(file.path, schema.names, origin)
    origin = replace(origin, language_names=language_names(schema, origin))
    columns = tuple(origin.known(schema.names))
    parts: list[Part] = []
    first_row = 0
    for group in range(metadata.num_row_groups):
        group_rows = metadata.row_group(group).num_rows
        step = max(PART_ROWS, -(-group_rows // _MAX_SLICES))
        for start in range(0, group_rows, step):
            parts.append(ParquetPart(file, origin, group, start, min(step, group_rows - start), first_row + start, columns))
        first_row += group_rows
    return parts
