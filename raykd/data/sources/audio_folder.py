"""A tree of audio files with transcripts beside them (`clip.flac`, `clip.txt`) or in a `metadata.csv` or `.jsonl`."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from raykd.data.files import SourceFile, connect, list_files, read_lines, relative_to
from raykd.data.sources.manifest import MANIFEST_SUFFIXES, parts_of_files
from raykd.data.sources.part import PART_ROWS, Part
from raykd.data.split_names import split_of_folders
from raykd.data.times import PartError
from raykd.data.utterances import NOT_UTF8, Origin, utterance
from raykd.errors import UserError

READ_SUFFIXES = (
    *(".wav", ".bwf", ".w64", ".rf64"),
    *(".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc"),
)
"""That libsndfile reads."""
OTHER_SUFFIXES = (
    *(".m4a", ".m4b", ".m4r", ".m4v", ".mp4", ".mov", ".3gp", ".3g2"),
    *(".webm", ".weba", ".mka", ".mkv", ".avi", ".flv", ".mpeg", ".mpg"),
    *(".aac", ".ac3", ".eac3", ".amr", ".ape", ".mp2", ".mpga", ".spx", ".wma", ".wv"),
)
"""That PyAV reads where it is installed; they are listed in any case, so that nothing is left out without a word."""
AUDIO_SUFFIXES = (*READ_SUFFIXES, *OTHER_SUFFIXES)
_LISTS = re.compile(r"(.*\.trans|transcripts?)\.txt")
"""Transcripts of many files, a line each: `84-121123.trans.txt` of LibriSpeech, `transcripts.txt` of its multilingual kin."""
_TIMED = re.compile(r"(\d+(?:\.\d+)?)([ \t]+)(\d+(?:\.\d+)?)([ \t]+)(\S.*)")
TIMED = "a transcript with times of parts; write a manifest with start and end"
_TIMIT_HZ = 16_000
_ALIKE = 0.5
"""How much of a text its two spellings share."""
_COMPARED = 100


@dataclass(frozen=True)
class FilesPart:
    """Audio files and, for each, the file with its transcript, or the transcript from a list."""

    pairs: tuple[tuple[SourceFile, SourceFile | None, str | None], ...]
    origin: Origin

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows, with the transcripts read."""
        for file, transcript, listed in self.pairs:
            said, problem = ({"text": listed}, None) if transcript is None else _read_text(transcript.path)
            fields = {"audio": file.path, "split": split_of_folders(file.name), **said}
            yield utterance(fields, file.name, self.origin, problem)


@dataclass(frozen=True)
class SplitByFolder:
    """Rows of another part; those without a split have that of the folders on the way to their audio."""

    part: Part
    root: str

    def rows(self) -> Iterator[dict[str, Any]]:
        """Utterance rows."""
        for row in self.part.rows():
            name = relative_to(self.root, row["path"] or "")
            inside = name != row["path"]
            yield {**row, "split": row["split"] or (split_of_folders(name) if inside else None)}


def audio_folder_parts(path: str, prefix: str, language: str | None, needs_text: bool = True) -> list[Part]:
    """Parts of an audio folder; ids are the names of the files relative to it.

    Where a folder has a metadata file, that file says which clips below the folder are used; elsewhere all are, and a clip
    without transcript is a row with that problem. The split is that which a sub-folder is named as.

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
    transcripts = {posixpath.splitext(file.name)[0]: file for file in files if file.name.lower().endswith(".txt")}
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
        column = _said(file.path, rows)
        return {row[0].strip(): row[min(column, len(row) - 1)].strip() or row[1].strip() for row in rows}
    if not _LISTS.fullmatch(base):
        return None
    rows = [re.split(r"\s", line.strip(), maxsplit=1) for line in read_lines(file.path) if line.strip()]
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def _said(path: str, rows: Sequence[Sequence[str]]) -> int:
    """Which column of such a list is the transcript: the third where it is the second in other words, else the one of them
    that has sentences; the other is the speaker's name or the like.

    Raises:
        UserError: it may be either.
    """
    pairs = [(row[1].strip(), row[2].strip()) for row in rows if len(row) == 3 and row[2].strip()][:_COMPARED]
    if not pairs:
        return 1
    alike = sum(SequenceMatcher(None, *pair, autojunk=False).ratio() for pair in pairs)
    if alike >= _ALIKE * len(pairs):
        return 2
    second, third = (sum(len(pair[side].split()) for pair in pairs) / len(pairs) for side in (0, 1))
    if max(second, third) < 2 * min(second, third):
        raise UserError(
            f"{path}: its second and third columns are different texts; keep the transcript alone (ID|TEXT), or write a first "
            "line with names, such as file_name,text"
        )
    return 1 if second > third else 2


def _untimed(text: str) -> dict[str, Any]:
    """A transcript without the times that its only line begins with, from 0 on in seconds (Audacity) or samples (TIMIT), and
    the length that they tell; nothing where it has none.

    Raises:
        PartError: the times are of parts of the recording.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [_TIMED.fullmatch(line) for line in lines]
    timed = [(float(one[1]), float(one[3]), one) for one in found if one is not None]
    if not timed or len(timed) < len(lines) or any(end <= begin for begin, end, _ in timed):
        return {}
    begin, end, line = timed[0]
    in_seconds = "." in line[1] and "." in line[3]
    if len(timed) == 1 and not (in_seconds or "\t" in (line[2], line[4]) or (begin == 0 and end >= _TIMIT_HZ // 10)):
        return {}  # "2 3 go"
    if len(timed) > 1 or begin > 0:
        raise PartError(TIMED)
    return {"text": " ".join(line[5].split()), "duration": end if in_seconds else end / _TIMIT_HZ}


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


def _read_text(path: str) -> tuple[dict[str, Any], str | None]:
    """The transcript in a file, its lines joined, with what else it tells, or the problem with it."""
    filesystem, inner = connect(path)
    try:
        with filesystem.open_input_stream(inner) as stream:
            text = stream.read().decode("utf-8-sig")
        return {"text": " ".join(text.split()), **_untimed(text)}, None
    except OSError:
        return {}, "unreadable transcript file"
    except UnicodeDecodeError:
        return {}, NOT_UTF8
    except PartError as error:
        return {}, str(error)
