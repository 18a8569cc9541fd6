"""A text column of a Hugging Face dataset: by hub name, a local dataset repository, or a `save_to_disk` folder; streamed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raykd.config.text import TextHuggingFaceSource
from raykd.data.files import child, list_files
from raykd.data.text_sources.part import RawLine, TextPart, lines_of_value
from raykd.errors import UserError
from raykd.storage import exists

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True)
class HuggingFacePart:
    """One split of a dataset, opened where it is read."""

    source: TextHuggingFaceSource
    stamps: tuple[str, ...]
    """Of the files of a local dataset."""

    @property
    def name(self) -> str:
        """Path or hub name."""
        return self.source.path

    def lines(self) -> Iterator[RawLine]:
        """The lines of all values; a line has the number of its row, from 1."""
        for row, fields in enumerate(_open(self.source), start=1):
            yield from lines_of_value(row, fields[self.source.column])


def huggingface_parts(source: TextHuggingFaceSource) -> list[TextPart]:
    """The dataset as one part.

    Raises:
        UserError: no such dataset, configuration, revision, split or column, or the hub cannot be reached.
    """
    local = exists(source.path)
    if not local and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source.path):
        raise UserError(
            f"text.source: {source.path} does not exist; give a hub name such as statmt/cc100 or an existing folder"
        )
    columns = _open(source).column_names
    if columns is not None and source.column not in columns:
        raise UserError(
            f"{source.path}: no column `{source.column}`; set text.source.column (columns found: {', '.join(columns)})"
        )
    files = list_files(source.path, ("",), "file", key="text.source") if local else []
    return [HuggingFacePart(source, tuple(f"{file.name}:{file.stamp}" for file in files))]


def _open(source: TextHuggingFaceSource) -> "Dataset | IterableDataset":
    import datasets

    path, split = source.path, source.split
    local = exists(path)
    try:
        if exists(child(path, "state.json")):
            return datasets.load_from_disk(path)
        if exists(child(path, "dataset_dict.json")):
            return datasets.load_from_disk(path)[split]
        revision = None if local else source.revision
        return datasets.load_dataset(path, source.name, split=split, revision=revision, streaming=True)
    except (OSError, ValueError, KeyError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"text.source: dataset {path} cannot be opened ({reason}); check path, name, split and revision"
        ) from None
