"""Which kind of source of speech or of text a folder is, from what lies in it.

A config is checked without a look at any disk or bucket: a source whose name does not tell its kind is `kind: auto` in it,
until the sources are listed for the first time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pyarrow import fs
from pydantic import ValidationError

from raykd.config.base import Section, types_in
from raykd.config.data import AutoSource, DataConfig, Source
from raykd.config.mistakes import mistakes
from raykd.config.text import AutoTextSource, TextConfig, TextSource
from raykd.data.sources.manifest import MANIFEST_SUFFIXES
from raykd.data.split_names import splits_in
from raykd.errors import UserError
from raykd.storage import filesystem_of

ConfigT = TypeVar("ConfigT", bound=Section)
_TARS = (".tar", ".tar.gz", ".tgz")
_MOST_FOLDERS = 100
"""Folders whose content is looked at: a listing each, and a corpus has a folder for each of its speakers."""


def with_kinds(config: ConfigT) -> ConfigT:
    """The config of a run with the kind of every source looked up.

    Raises:
        UserError: a source does not exist, cannot be listed, or has keys that its kind does not know.
    """
    changed: dict[str, Section] = {}
    for key, section in config:
        if isinstance(section, DataConfig):
            changed[key] = with_speech_kinds(section)
        elif isinstance(section, TextConfig):
            changed[key] = with_text_kinds(section)
    return config.model_copy(update=changed)


def with_speech_kinds(config: DataConfig) -> DataConfig:
    """`with_kinds` of a data section."""
    return config.model_copy(update={"source": _resolved(config.source, "data.source", recognise_folder, _SPEECH)})


def with_text_kinds(config: TextConfig) -> TextConfig:
    """`with_kinds` of a text section."""
    return config.model_copy(update={"source": _resolved(config.source, "text.source", recognise_text_folder, _TEXT)})


def _resolved(
    sources: Sequence[Section], key: str, recognise: Callable[[str], str], sections: Mapping[str, type[Section]]
) -> tuple[Section, ...]:
    found = []
    for number, source in enumerate(sources):
        if isinstance(source, AutoSource | AutoTextSource):
            where = key if len(sources) == 1 else f"{key}[{number}]"
            try:
                section = sections[recognise(source.path)]
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            found.append(_as(section, source, where))
        else:
            found.append(source)
    return tuple(found)


def _as(section: type[Section], source: Section, key: str) -> Section:
    tree = source.model_dump(exclude_unset=True, exclude={"kind"})
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        path, complaint = mistakes(error, section, tree)[0]
        raise UserError(f"{key}.{path}: {complaint}") from None


def _by_kind(union: Any) -> dict[str, type[Section]]:
    sections = [part for part in types_in(union) if isinstance(part, type) and issubclass(part, Section)]
    return {section.model_fields["kind"].default: section for section in sections}


_SPEECH = _by_kind(Source)
_TEXT = _by_kind(TextSource)


def recognise_folder(path: str) -> str:
    """The source kind of a folder, local or on any pyarrow filesystem. A glob is judged by its file suffix before this.

    Raises:
        UserError: the folder does not exist or cannot be listed.
    """
    filesystem, inner = filesystem_of(path)
    try:
        info = filesystem.get_file_info(inner)
        if info.type == fs.FileType.NotFound:
            raise UserError(f"{path} does not exist; give a manifest, a tar, a folder, hf:NAME or demo")
        if info.type == fs.FileType.File:
            raise UserError(f"{path} is no manifest (.jsonl, .csv, .tsv, .parquet), no tar and no folder")
        folders, files = _names(filesystem, inner)
        below = {folder: _names(filesystem, f"{inner}/{folder}")[1] for folder in sorted(folders)[:_MOST_FOLDERS]}
    except OSError as error:
        raise UserError(f"{path} cannot be listed ({error.strerror or error}); check its permissions") from None
    return _kind(folders, files, below)


def _kind(folders: set[str], files: set[str], below: Mapping[str, set[str]]) -> str:
    """The kind of a folder by the names in it, and the names of the files in its folders."""
    named = {name.lower() for name in files}
    if "clips" in folders and any(name.endswith(".tsv") for name in named):
        return "common_voice"
    if "labels.json" in named:
        return "labels"
    if "wav.scp" in named or any("wav.scp" in inside for inside in below.values()):
        return "kaldi"
    if named & {"state.json", "dataset_dict.json"}:
        return "huggingface"
    if _has_manifest(named) and not _has_tar(named):
        return "manifest"
    if "readme.md" in named and "data" in folders:
        return "huggingface"
    named |= {name.lower() for folder, inside in below.items() if splits_in(folder) for name in inside}
    if _has_tar(named):
        return "webdataset"
    return "manifest" if _has_manifest(named) else "audio_folder"


def _has_tar(names: Iterable[str]) -> bool:
    return any(name.endswith(_TARS) for name in names)


def _has_manifest(names: Iterable[str]) -> bool:
    return any(name.endswith(MANIFEST_SUFFIXES) and not name.startswith("metadata.") for name in names)


def recognise_text_folder(path: str) -> str:
    """The kind of text source that a folder is: `huggingface`, `parquet` or `files`; globs and odd file names are `files`.

    Raises:
        UserError: the folder cannot be listed.
    """
    filesystem, inner = filesystem_of(path)
    try:
        if filesystem.get_file_info(inner).type != fs.FileType.Directory:
            return "files"
        folders, files = _names(filesystem, inner)
    except OSError as error:
        raise UserError(f"{path} cannot be listed ({error.strerror or error}); check its permissions") from None
    if files & {"state.json", "dataset_dict.json"} or ("README.md" in files and "data" in folders):
        return "huggingface"
    return "parquet" if any(name.endswith(".parquet") for name in files) else "files"


def _names(filesystem: fs.FileSystem, folder: str) -> tuple[set[str], set[str]]:
    """Names of the folders and of the files in a folder."""
    infos = filesystem.get_file_info(fs.FileSelector(folder))
    folders = {info.base_name for info in infos if info.type == fs.FileType.Directory}
    return folders, {info.base_name for info in infos} - folders
