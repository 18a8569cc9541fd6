"""Manifests: a file, a folder of files or a glob, in JSONL, CSV, TSV or Parquet."""

from raykd.data.files import SourceFile, list_files
from raykd.data.sources.parquet_manifest import parquet_parts
from raykd.data.sources.part import Part
from raykd.data.sources.text_manifest import text_parts
from raykd.data.utterances import Origin, split_of_file
from raykd.errors import UserError

MANIFEST_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")


def manifest_parts(path: str, prefix: str, language: str | None, needs_text: bool = True) -> list[Part]:
    """Parts of a manifest source. Audio paths are relative to the folder of the manifest that names them.

    Rows without a split have the one that the file's name tells, if any (`train.jsonl`, `test-00000-of-00003.parquet`,
    `dev/rows.csv`).

    Raises:
        UserError: no such file, not readable, or without a column for audio or for text.
    """
    files = list_files(path, MANIFEST_SUFFIXES, "manifest")
    return parts_of_files(
        [
            (file, Origin(file.root, file.folder, prefix, language, split_of_file(file.name), needs_text=needs_text))
            for file in files
        ]
    )


def parts_of_files(files: list[tuple[SourceFile, Origin]]) -> list[Part]:
    """Parts of manifest files, in their order, Parquet files last.

    Raises:
        UserError: as `manifest_parts`.
    """
    parts: list[Part] = []
    parquet: list[tuple[SourceFile, Origin]] = []
    for file, origin in files:
        name = file.name.lower()
        if name.endswith(".parquet"):
            parquet.append((file, origin))
        elif name.endswith((*MANIFEST_SUFFIXES, ".json")):
            parts += text_parts(file, origin)
        else:
            raise UserError(f"data.source: {file.path} is no manifest; give a file in {', '.join(MANIFEST_SUFFIXES)}")
    return parts + parquet_parts(parquet)
