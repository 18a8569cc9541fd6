"""Hugging Face data sets: by hub name, a local dataset repository, or a `save_to_disk` folder.

Audio stays encoded (`Audio(decode=False)`), so torchcodec is not needed. Parquet files, local or on the hub, are read by our
own reader; `datasets` only says which they are. Ids are file and row (or the path of audio that is not embedded), never an `id`
column: in FLEURS, for one, the recordings of a sentence by several speakers share their `id`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raykd.config.data import HuggingFaceSource
from raykd.data.columns import TEXT_COLUMNS
from raykd.data.files import SourceFile, child, connect, list_files, read_error, relative_to
from raykd.data.sources.parquet_manifest import ParquetPart, language_names, parquet_parts, rows_of
from raykd.data.sources.part import Part
from raykd.data.sources.text_manifest import require_columns
from raykd.data.utterances import Origin, utterance
from raykd.errors import UserError
from raykd.storage import exists, is_remote, read_bytes

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

_READ_ROWS = 64


@dataclass(frozen=True)
class ArrowPart:
    """One Arrow file that `save_to_disk` wrote (IPC stream format)."""

    file: SourceFile
    origin: Origin

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows; a damaged file ends with a row that says so."""
        number = 0
        try:
            for fields in self._fields():
                yield utterance(fields, f"{self.file.name}:{number}", self.origin)
                number += 1
        except (OSError, pa.ArrowInvalid):
            if is_remote(self.file.path):  # it may be the connection, so nothing is known about the file
                raise
            yield utterance({}, f"{self.file.name}:{number}", self.origin, "unreadable rest of an Arrow file")

    def _fields(self) -> Iterator[dict[str, Any]]:
        with _open_arrow(self.file.path) as stream, pa.ipc.open_stream(stream) as reader:
            columns = self.origin.known(reader.schema.names)
            for batch in reader:
                for start in range(0, len(batch), _READ_ROWS):
                    yield from rows_of(batch.select(columns).slice(start, _READ_ROWS))


@dataclass(frozen=True)
class StreamPart:
    """One shard of a dataset that is not stored in Parquet, streamed by `datasets`."""

    dataset: "IterableDataset"
    name: str
    origin: Origin
    stamps: tuple[tuple[str, ...], ...] = ()
    """Of the split's files: what `datasets` tells a change by, time or ETag, on the hub repository and commit."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows."""
        number = 0
        for table in self.dataset.with_format("arrow").iter(_READ_ROWS):
            for batch in table.select(self.origin.known(table.column_names)).to_batches():
                for fields in rows_of(batch):
                    yield utterance(fields, f"{self.name}:{number}", self.origin)
                    number += 1


def huggingface_parts(source: HuggingFaceSource, prefix: str, language: str | None, needs_text: bool = True) -> list[Part]:
    """Parts of a dataset, its splits in alphabetical order; `validation` becomes `dev`.

    Raises:
        UserError: no such dataset, configuration or revision, the hub cannot be reached, or a column is missing.
    """
    # A local folder by its whole path: ids are relative to it, from wherever the command was started.
    root = child(source.path, "") if exists(source.path) else source.path
    origin = Origin(
        root,
        root,
        prefix,
        language,
        id_columns=(),
        audio_columns=(source.audio_column,),
        text_columns=(source.text_column,) if source.text_column else TEXT_COLUMNS,
        needs_text=needs_text,
    )
    if exists(child(source.path, "dataset_dict.json")) or exists(child(source.path, "state.json")):
        return _saved_parts(source.path, origin)
    if is_remote(source.path):
        raise UserError(f"data.source: {source.path} holds no save_to_disk dataset; give its Parquet files as kind manifest")
    return _builder_parts(_builder(source), origin)


def without_default_split(parts: Sequence[Part]) -> list[Part]:
    """Parts of a dataset without the split `train` where that is their only one: `datasets` calls rows so of which it does not
    know better, and every piece of what `train_test_split` cut.
    """
    known = [part for part in parts if isinstance(part, ArrowPart | ParquetPart | StreamPart)]
    if {part.origin.split for part in known} != {"train"}:
        return list(parts)
    return [replace(part, origin=replace(part.origin, split=None)) for part in known]


def _saved_parts(path: str, origin: Origin) -> list[Part]:
    parts: list[Part] = []
    for file in list_files(path, (".arrow",), "saved dataset"):
        if file.name.rpartition("/")[2].startswith("cache-"):
            continue
        folder = file.name.rpartition("/")[0]
        split = folder or _saved_split(file.folder)
        try:
            with _open_arrow(file.path) as stream, pa.ipc.open_stream(stream) as reader:
                schema = reader.schema
        except (OSError, pa.ArrowException) as error:
            raise read_error(file.path, error) from None
        require_columns(file.path, schema.names, origin)
        own = replace(origin, root=file.root, folder=file.folder, split=split or None)
        parts.append(ArrowPart(file, replace(own, language_names=language_names(schema, own))))
    return parts


def _saved_split(folder: str) -> str | None:
    """The split that a single saved dataset was, as its `state.json` tells."""
    return json.loads(read_bytes(child(folder, "state.json"))).get("_split")


def _open_arrow(path: str) -> pa.NativeFile:
    filesystem, inner = connect(path)
    return filesystem.open_input_file(inner) if is_remote(path) else pa.memory_map(inner)


def _builder(source: HuggingFaceSource) -> "DatasetBuilder":
    import datasets

    local = exists(source.path)
    if not local and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source.path):
        raise UserError(
            f"data.source: {source.path} does not exist; give a hub name such as google/fleurs or an existing folder"
        )
    try:
        path = child(source.path, "") if local else source.path
        return datasets.load_dataset_builder(path, name=source.name, revision=None if local else source.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"data.source: dataset {source.path} cannot be opened ({reason}); check path, name, revision") from None


def _builder_parts(builder: "DatasetBuilder", origin: Origin) -> list[Part]:
    from datasets.packaged_modules.parquet.parquet import Parquet

    files_of_split = builder.config.data_files
    if isinstance(builder, Parquet) and files_of_split:
        root = builder.base_path or origin.root
        files = []
        for split in sorted(files_of_split):
            for path, stamp in zip(files_of_split[split], files_of_split[split].origin_metadata, strict=True):
                file = SourceFile(path, root, relative_to(root, path), ":".join(stamp))
                files.append((file, replace(origin, root=root, folder=file.folder, split=str(split))))
        return parquet_parts(files)
    parts: list[Part] = []
    for split, dataset in sorted(builder.as_streaming_dataset().items()):
        of_split = files_of_split.get(split) if files_of_split else None
        parts += _stream_parts(dataset, str(split), origin, tuple(of_split.origin_metadata) if of_split else ())
    return parts


def _stream_parts(dataset: "IterableDataset", split: str, origin: Origin, stamps: tuple[tuple[str, ...], ...]) -> list[Part]:
    from datasets import Audio

    if dataset.features is not None:
        names = list(dataset.features)
        require_columns(f"data.source {origin.root}, split {split}", names, origin)
        origin = replace(origin, language_names=language_names(dataset.features.arrow_schema, origin))
        for name in names:
            if isinstance(dataset.features[name], Audio):
                dataset = dataset.cast_column(name, Audio(decode=False))
    n_shards = dataset.num_shards
    own = replace(origin, split=split)
    return [StreamPart(dataset.shard(n_shards, index), f"{split}/{index:05d}", own, stamps) for index in range(n_shards)]
