"""A text column of Parquet files."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raykd.config.text import TextParquetSource
from raykd.data.files import SourceFile, connect, list_files, read_error
from raykd.data.text_sources.part import RawLine, TextPart, lines_of_value
from raykd.errors import UserError

_READ_ROWS = 1024


@dataclass(frozen=True)
class ParquetPart:
    """One file."""

    file: SourceFile
    column: str

    @property
    def name(self) -> str:
        """Its full path."""
        return self.file.path

    def lines(self) -> Iterator[RawLine]:
        """The lines of all values; a line has the number of its row, from 1."""
        filesystem, inner = connect(self.file.path)
        row = 0
        try:
            # A buffer makes pyarrow stream the column chunks; without one it would load each of them whole.
            with filesystem.open_input_file(inner) as stream, pq.ParquetFile(stream, buffer_size=1 << 20) as parquet:
                for batch in parquet.iter_batches(_READ_ROWS, columns=[self.column]):
                    for value in batch.column(0).to_pylist():
                        row += 1
                        yield from lines_of_value(row, value)
        except (OSError, pa.ArrowException) as error:
            raise read_error(self.name, error) from None


def parquet_parts(source: TextParquetSource) -> list[TextPart]:
    """One part a file, sorted by name.

    Raises:
        UserError: no such file, no Parquet file, or no such column of text in it.
    """
    files = list_files(source.path, (".parquet",), "Parquet file", key="text.source")
    for file in files:
        _check(file, source.column)
    return [ParquetPart(file, source.column) for file in files]


def _check(file: SourceFile, column: str) -> None:
    try:
        filesystem, inner = connect(file.path)
        schema = pq.read_schema(inner, filesystem=filesystem)
    except pa.ArrowInvalid:
        raise UserError(f"{file.path}: not a Parquet file; remove it or write it again") from None
    except (OSError, pa.ArrowException) as error:
        raise read_error(file.path, error) from None
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    if column not in texts:
        found = ", ".join(texts) or "none"
        raise UserError(f"{file.path}: no text column `{column}`; set text.source.column (text columns found: {found})")
