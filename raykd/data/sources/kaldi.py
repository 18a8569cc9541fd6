"""Kaldi's data folders: `wav.scp` (recording, file), `text` (utterance, words), and where there are any `segments` (utterance,
recording, start, end) and `utt2spk` (utterance, speaker)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raykd.data.files import SourceFile, child, list_files, read_lines
from raykd.data.sources.part import PART_ROWS, Part
from raykd.data.split_names import split_of_folders
from raykd.data.utterances import Origin, utterance
from raykd.errors import UserError
from raykd.storage import exists

_COMMAND = "a command in wav.scp, not a file"
_COPIED = re.compile(r"(^|/)split\d+(utt)?/\d+/")
"""Pieces of a data folder that Kaldi puts into it (`split_data.sh`)."""
_FOLDERS_UP = 4
"""Folders above a data folder that its paths may start from: Kaldi's start from the recipe's."""


@dataclass(frozen=True)
class KaldiPart:
    """Some utterances of a data folder."""

    fields: tuple[dict[str, Any], ...]
    origin: Origin

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows."""
        for fields in self.fields:
            yield utterance(fields, fields["id"], self.origin, fields.get("problem"))


def kaldi_parts(path: str, prefix: str, language: str | None, needs_text: bool = True) -> list[Part]:
    """Parts of all data folders below a path; the split is that which a folder's name tells.

    Raises:
        UserError: no `wav.scp`, or a file that cannot be read.
    """
    parts: list[Part] = []
    files = list_files(path, ("wav.scp",), "wav.scp")
    for file in [file for file in files if not _COPIED.search(file.name)] or files:
        parts += _folder_parts(file, prefix, language, needs_text)
    return parts


def _folder_parts(scp: SourceFile, prefix: str, language: str | None, needs_text: bool) -> list[Part]:
    folder = scp.folder
    recordings = dict(_pairs(scp.path))
    texts = dict(_pairs(child(folder, "text")))
    speakers = dict(_pairs(child(folder, "utt2spk")))
    segments = {name: rest.split() for name, rest in _pairs(child(folder, "segments"))}
    if not recordings:
        raise UserError(f"{scp.path}: has no recordings; give a Kaldi data folder")
    base = _base(folder, recordings)
    rows = []
    for name in segments or recordings:
        recording, *span = segments.get(name) or [name]
        entry = recordings.get(recording, "")
        fields: dict[str, Any] = {"id": name, "text": texts.get(name), "speaker": speakers.get(name)}
        if entry.endswith("|"):
            fields["problem"] = _COMMAND
        elif entry:
            fields["audio"] = child(base, entry)
        if len(span) >= 2 and span[1] == "-1":  # to the end
            fields["start"] = span[0]
        elif len(span) >= 2:
            fields |= {"start": span[0], "end": span[1]}
        rows.append(fields)
    origin = Origin(scp.root, base, prefix, language, split_of_folders(scp.name), needs_text=needs_text)
    return [KaldiPart(tuple(rows[begin : begin + PART_ROWS]), origin) for begin in range(0, len(rows), PART_ROWS)]


def _base(folder: str, recordings: dict[str, str]) -> str:
    """The folder that relative paths of a `wav.scp` start from: its own, or the nearest above where the first one is there."""
    first = next((entry for entry in recordings.values() if not entry.endswith("|")), "")
    base = folder
    for _ in range(_FOLDERS_UP):
        if exists(child(base, first)):
            return base
        base = child(base, "..")
    return folder


def _pairs(path: str) -> list[tuple[str, str]]:
    """(first word, rest) of the lines of a file; none where there is no file."""
    lines = read_lines(path) if exists(path) else []
    split = [line.strip().split(maxsplit=1) for line in lines if line.strip()]
    return [(words[0], words[1].strip() if len(words) > 1 else "") for words in split]
