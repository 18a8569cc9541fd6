"""Manifests: a file, a folder of files or a glob, in JSONL, CSV, TSV or Parquet."""

from dataclasses import replace

from raykd.config.data import Columns
from raykd.data.columns import OUR_COLUMNS
from raykd.data.files import SourceFile, list_files
from raykd.data.sources.parquet_manifest import parquet_parts
from raykd.data.sources.part import Part
from raykd.data.sources.text_manifest import text_parts
from raykd.data.split_names import split_of_file
from raykd.data.utterances import Origin
from raykd.errors import UserError

MANIFEST_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz", ".tsv.gz")


def manifest_parts(
    path: str, prefix: str, language: str | None, needs_text: bool = True, columns: Columns | None = None
) -> list[Part]:
    """Parts of a manifest source. Audio paths are relative to the folder of the manifest that names them.

    Rows without a split have the one that the file's name tells, if any (`train.jsonl`, `test-00000-of-00003.parquet`,
    `dev/rows.csv`).

    Raises:
        UserError: no such file, not readable, or without a column for audio or for text.
    """
    files = list_files(path, MANIFEST_SUFFIXES, "manifest")
    origin = _origin(prefix, language, needs_text, columns or Columns())
    return parts_of_files(
        [(file, replace(origin, root=file.root, folder=file.folder, split=split_of_file(file.name))) for file in files]
    )


def _origin(prefix: str, language: str | None, needs_text: bool, columns: Columns) -> Origin:
    """Of files whose columns may have other names."""
    named = columns.model_dump(exclude={"time_unit", "rate"}, exclude_none=True)
    unit_s = {"s": 1.0, "ms": 1e-3, "samples": 1 / (columns.rate or 1)}[columns.time_unit]
    renamed = tuple((theirs, OUR_COLUMNS[ours]) for ours, theirs in named.items())
    return Origin("", "", prefix, language, needs_text=needs_text, renamed=renamed, unit_s=unit_s)


def parts_of_files(files: list[tuple[SourceFile, Origin]]) -> list[Part]:
    """Parts of manifest files, in their order, Parquet files last.

    Raises:
        UserError: as `manifest_parts`.
    """
    parts: list[Part] = []
    parquet: list[tuple[SourceFile, Origin]] = []
    for file, origin in files:
        name = file.name.lower().removesuffix(".gz")
        if name.endswith(".parquet"):
            parquet.append((file, origin))
        elif name.endswith((*MANIFEST_SUFFIXES, ".json")):
            parts += text_parts(file, origin)
        else:
            raise UserError(f"data.source: {file.path} is no manifest; give a file in {', '.join(MANIFEST_SUFFIXES)}")
    return parts + parquet_parts(parquet)
