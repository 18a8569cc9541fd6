"""WebDataset tars: members that share a stem make an utterance (`000.flac`, `000.txt` and/or `000.json`)."""

import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from raykd.data.columns import TEXT_COLUMNS
from raykd.data.files import SourceFile, connect, list_files
from raykd.data.sources.audio_folder import AUDIO_SUFFIXES
from raykd.data.sources.part import Part
from raykd.data.split_names import split_of_file, split_of_folders
from raykd.data.utterances import NOT_JSON, NOT_UTF8, Origin, utterance

# Columns for what the members hold, named so that no key of a `.json` is taken for them.
_ID, _AUDIO, _TRANSCRIPT = "<stem>", "<audio>", "<txt>"
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_LARGEST = 256 << 20
"""Bytes of a member that is read: hours of speech in any format."""
_WAITING = 512 << 20
"""Bytes of members that wait for the rest of their utterance."""
TOO_LARGE = "larger than an utterance can be"
Member = tuple[str, str, bytes | None]


@dataclass(frozen=True)
class TarPart:
    """One tar, read as a stream: one utterance is in memory at a time."""

    file: SourceFile
    origin: Origin

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows; a tar that breaks off ends with a row that says so."""
        shard = re.sub(r"\.(tar|tar\.gz|tgz)$", "", self.file.name, flags=re.IGNORECASE)
        try:
            for stem, members in _together(self._members(), self.origin.needs_text):
                fields, problem = _fields(members)
                origin = replace(self.origin, split=split_of_folders(posixpath.join(self.origin.split or "", stem)))
                yield utterance({**fields, _ID: f"{shard}/{stem}"}, shard, origin, problem)
        except (tarfile.TarError, EOFError, zlib.error):
            yield utterance({}, self.file.name, self.origin, "unreadable rest of a tar")

    def _members(self) -> Iterator[Member]:
        """(stem, extension, content) of the files in the tar; the extension starts at the first dot of the base name. A file
        of more than `_LARGEST` has no content.
        """
        filesystem, inner = connect(self.file.path)
        with filesystem.open_input_stream(inner, compression=None) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                folder, base = posixpath.split(member.name)
                stem, _, extension = base.partition(".")
                if not member.isfile() or not stem:
                    continue
                content = tar.extractfile(member) if member.size <= _LARGEST else None
                name = posixpath.join(folder, stem).removeprefix("./")
                yield name, extension.lower(), content.read() if content is not None else None


def _together(members: Iterator[Member], needs_text: bool) -> Iterator[tuple[str, list[tuple[str, bytes | None]]]]:
    """Members by their stem. Those that lie side by side and are an utterance go at once; others wait for the rest of them,
    which may lie anywhere in the tar, as long as no more than `_WAITING` bytes do.
    """
    waiting: dict[str, list[tuple[str, bytes | None]]] = {}
    n_bytes = 0
    for stem, group in groupby(members, key=lambda member: member[0]):
        found = [(extension, data) for _, extension, data in group]
        whole = waiting.pop(stem, []) + found
        if _is_whole(whole, needs_text):
            n_bytes -= sum(len(data or b"") for _, data in whole[: len(whole) - len(found)])
            yield stem, whole
            continue
        waiting[stem] = whole
        n_bytes += sum(len(data or b"") for _, data in found)
        while n_bytes > _WAITING:
            first = next(iter(waiting))
            n_bytes -= sum(len(data or b"") for _, data in waiting[first])
            yield first, waiting.pop(first)
    yield from waiting.items()


def _is_whole(members: list[tuple[str, bytes | None]], needs_text: bool) -> bool:
    """There is sound, and text where that is needed: a JSON may have none, and the text come later."""
    if not any(f".{extension.rpartition('.')[2]}" in AUDIO_SUFFIXES for extension, _ in members):
        return False
    return not needs_text or bool({_TRANSCRIPT, *TEXT_COLUMNS} & {name.lower() for name in _fields(members)[0]})


def webdataset_parts(path: str, prefix: str, language: str | None, needs_text: bool = True) -> list[Part]:
    """One part a tar. Ids are `<tar>/<stem>`, because stems often repeat from tar to tar.

    The split is that of the JSON, else that of the tar's name (`train-00012.tar`, `dev/00003.tar`) and the folders in the
    tar, if they tell one.

    Raises:
        UserError: no such file, or no tar in the folder.
    """
    files = list_files(path, _TAR_SUFFIXES, "tar")
    return [TarPart(file, _origin(file, prefix, language, needs_text)) for file in files]


def _origin(file: SourceFile, prefix: str, language: str | None, needs_text: bool) -> Origin:
    return Origin(
        file.root,
        file.root,
        prefix,
        language,
        split_of_file(file.name),
        id_columns=(_ID,),
        audio_columns=(_AUDIO,),
        text_columns=(_TRANSCRIPT, *TEXT_COLUMNS),
        needs_text=needs_text,
    )


def _fields(members: list[tuple[str, bytes | None]]) -> tuple[dict[str, Any], str | None]:
    """Columns of an utterance from its members, and what is wrong with them. A `.txt` counts before the text in a `.json`."""
    fields: dict[str, Any] = {}
    problem = None
    for extension, data in members:
        if data is None:
            problem = TOO_LARGE
        elif extension == "json":
            try:
                loaded = json.loads(data)
            except (ValueError, RecursionError):
                loaded = None
            if isinstance(loaded, dict):
                fields = {**loaded, **fields}
            else:
                problem = NOT_JSON
        elif extension == "txt":
            try:
                fields[_TRANSCRIPT] = data.decode("utf-8-sig")
            except UnicodeDecodeError:
                problem = NOT_UTF8
        elif f".{extension.rpartition('.')[2]}" in AUDIO_SUFFIXES:
            fields.setdefault(_AUDIO, data)
    return fields, problem
