"""A tree of audio files with transcripts beside them (`clip.flac`, `clip.txt`) or in a `metadata.csv` or `.jsonl`."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raykd.data.files import SourceFile, connect, list_files, relative_to
from raykd.data.sources.manifest import MANIFEST_SUFFIXES, parts_of_files
from raykd.data.sources.part import PART_ROWS, Part
from raykd.data.utterances import NOT_UTF8, Origin, split_of_folder, utterance
from raykd.errors import UserError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".oga", ".mp3")


@dataclass(frozen=True)
class FilesPart:
    """Audio files and, for each, the file with its transcript."""

    pairs: tuple[tuple[SourceFile, str | None], ...]
    origin: Origin

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows, with the transcripts read."""
        for file, transcript in self.pairs:
            text, problem = (None, None) if transcript is None else _read_text(transcript)
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
    pairs = [(file, transcripts.get(posixpath.splitext(file.name)[0])) for file in audio if not listed & _folders(file.name)]
    origin = Origin(root, root, prefix, language, needs_text=needs_text)
    return parts + [FilesPart(tuple(pairs[start : start + PART_ROWS]), origin) for start in range(0, len(pairs), PART_ROWS)]


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
