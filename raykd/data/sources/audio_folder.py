"""A tree of audio files with transcripts beside them (`clip.flac`, `clip.txt`) or in a `metadata.csv` or `.jsonl`."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raykd.data.files import SourceFile, connect, list_files, read_lines, relative_to
from raykd.data.sources.manifest import MANIFEST_SUFFIXES, parts_of_files
from raykd.data.sources.part import PART_ROWS, Part
from raykd.data.utterances import NOT_UTF8, Origin, split_of_folder, utterance
from raykd.errors import UserError

READ_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".oga", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64")
"""That libsndfile reads."""
OTHER_SUFFIXES = (".m4a", ".mp4", ".webm", ".aac", ".wma", ".amr", ".mka", ".mkv", ".mov", ".3gp", ".mp2", ".ac3", ".mpga")
"""That PyAV reads where it is installed; they are listed in any case, so that nothing is left out without a word."""
AUDIO_SUFFIXES = (*READ_SUFFIXES, *OTHER_SUFFIXES)
_LISTS = re.compile(r"(.*\.trans|transcripts?)\.txt")
"""Transcripts of many files, a line each: `84-121123.trans.txt` of LibriSpeech, `transcripts.txt` of its multilingual kin."""


@dataclass(frozen=True)
class FilesPart:
    """Audio files and, for each, the file with its transcript, or the transcript from a list."""

    pairs: tuple[tuple[SourceFile, str | None, str | None], ...]
    origin: Origin

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows, with the transcripts read."""
        for file, transcript, listed in self.pairs:
            text, problem = (listed, None) if transcript is None else _read_text(transcript)
            fields = {"audio": file.path, "text": text, "split": split_of_folder(file.name)}
            yield utterance(fields, file.name, self.origin, problem)


@dataclass(frozen=True)
class SplitByFolder:
    """Rows of another part; those without a split have that of the first folder on the way to their audio."""

    part: Part
    root: str

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows."""
        for row in self.part.rows():
            yield {**row, "split": row["split"] or split_of_folder(relative_to(self.root, row["path"] or ""))}


def audio_folder_parts(path: str, prefix: str, language: str | None, needs_text: bool = True) -> list[Part]:
    """Parts of an audio folder; ids are the names of the files relative to it.

    Where a folder has a metadata file, that file says which clips below the folder are used; elsewhere all are, and a clip
    without transcript is a row with that problem. The split is the first sub-folder if that is named as a split.

    Raises:
        UserError: no such folder, or no audio in it.
    """
    files = list_files(path, (*AUDIO_SUFFIXES, ".txt", *(f"metadata{suffix}" for suffix in MANIFEST_SUFFIXES)), "audio")
    metadata = [file for file in files if posixpath.basename(file.name).lower().startswith("metadata.")]
    listing = {file.name: texts for file in files if (texts := _listed_texts(file)) is not None}
    metadata = [file for file in metadata if file.name not in listing]
    audio = [file for file in files if file.name.lower().endswith(AUDIO_SUFFIXES)]
    if not audio:
        raise UserError(f"data.source: no audio in {path}; expected {', '.join(AUDIO_SUFFIXES)}")
    root = audio[0].root
    parts: list[Part] = [
        SplitByFolder(part, root)
        for part in parts_of_files(
            [(file, Origin(root, file.folder, prefix, language, needs_text=needs_text)) for file in metadata]
        )
    ]
    listed = {posixpath.dirname(file.name) for file in metadata}
    transcripts = {posixpath.splitext(file.name)[0]: file.path for file in files if file.name.lower().endswith(".txt")}
    pairs = [
        (file, transcripts.get(posixpath.splitext(file.name)[0]), _text_in(listing, file.name))
        for file in audio
        if not listed & _folders(file.name)
    ]
    origin = Origin(root, root, prefix, language, needs_text=needs_text)
    return parts + [FilesPart(tuple(pairs[start : start + PART_ROWS]), origin) for start in range(0, len(pairs), PART_ROWS)]


def _listed_texts(file: SourceFile) -> dict[str, str] | None:
    """Transcripts by the stem of their file, from a list of them: `ID TEXT` or `ID<tab>TEXT` a line, or LJSpeech's
    `metadata.csv`, `ID|TEXT|TEXT WITH NUMBERS WRITTEN OUT`. None: it is none.
    """
    base = posixpath.basename(file.name).lower()
    if base == "metadata.csv":
        lines = read_lines(file.path)
        rows = [line.split("|") for line in lines if line]
        if not rows or not all(2 <= len(row) <= 3 for row in rows) or "file_name" in rows[0]:
            return None
        return {row[0].strip(): row[-1].strip() or row[1].strip() for row in rows}
    if not _LISTS.fullmatch(base):
        return None
    rows = [re.split(r"\s", line.strip(), maxsplit=1) for line in read_lines(file.path) if line.strip()]
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def _text_in(listing: Mapping[str, Mapping[str, str]], name: str) -> str | None:
    """The transcript of an audio file from the list that lies nearest to it, in its folder or one above."""
    stem = posixpath.splitext(posixpath.basename(name))[0]
    above = _folders(name)
    holding = [(posixpath.dirname(of), texts) for of, texts in listing.items() if posixpath.dirname(of) in above]
    for _, texts in sorted(holding, key=lambda found: -len(found[0])):
        if stem in texts:
            return texts[stem]
    return None


def _folders(name: str) -> set[str]:
    """All folders that a relative file name lies in, the root (`""`) included."""
    parts = name.split("/")[:-1]
    return {"/".join(parts[:depth]) for depth in range(len(parts) + 1)}


def _read_text(path: str) -> tuple[str | None, str | None]:
    """The transcript in a file, its lines joined, or the problem with it."""
    filesystem, inner = connect(path)
    try:
        with filesystem.open_input_stream(inner) as stream:
            return " ".join(stream.read().decode("utf-8-sig").split()), None
    except OSError:
        return None, "unreadable transcript file"
    except UnicodeDecodeError:
        return None, NOT_UTF8
