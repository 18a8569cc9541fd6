"""From raw lines to segments: one pass over the text in its order, which no number of cores can change.

The preparation of the published Czech masked language model (Nadrchal 2025, `mlm/lstm_data.py` of its repository): lines with
too few words are dropped, all words that are left are joined and cut into segments of 15, digits glued to the front of a word
(numbers of Bible verses) are stripped, a segment is cut to 512 characters, and case and punctuation stay. Ours on top: NFC,
single spaces, lines that come again are dropped, broken lines are rejected.
"""

import gzip
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from raykd import storage
from raykd.config.text import TextConfig
from raykd.data.corpus import REJECTS_FILE, WORDS_FILE, write_parquet
from raykd.data.rejects import REJECT_COLUMNS, RejectedError
from raykd.data.text_sources.part import MAX_LINE_BYTES, TextPart
from raykd.data.utterances import NOT_UTF8
from raykd.errors import UserError

LINES_FILE = "lines.json"
SEGMENTS_SCHEMA = pa.schema([("texts", pa.list_(pa.string()))])
"""A row holds the segments of a shard."""

NUL_CHARACTERS = "NUL characters"
CONTROL_CHARACTERS = "control characters only"
LINE_TOO_LONG = f"line over {MAX_LINE_BYTES >> 20} MiB"

_LETTER = re.compile(r"[^\W\d_]")
_VERSE_NUMBER = re.compile(r"\d+(?=[^\W\d_])")
_MOST_REJECTS_KEPT = 100_000


@dataclass
class Lines:
    """What became of the lines; `read` is the sum of `kept`, `duplicate`, `short` and the rejected ones."""

    read: int = 0
    kept: int = 0
    duplicate: int = 0
    short: int = 0
    """With fewer words than `text.min_words`; empty lines too."""
    bytes: int = 0
    """UTF-8 bytes of the kept lines."""
    words: int = 0
    """Distinct words of the segments."""
    rejects: Counter[str] = field(default_factory=Counter)
    """Lines by reason."""


@dataclass(frozen=True)
class SegmentReader:
    """Reads the parts of a text one after the other.

    Memory: 8 bytes, in Python's terms about 80, for each kept line when duplicates are dropped, and each distinct word once.
    """

    parts: Sequence[TextPart]
    config: TextConfig
    folder: str
    """Where the words file, the rejects and the counts are written at the end."""

    def tables(self) -> Iterator[pa.Table]:
        """The segments, a table of one row for each shard (`SEGMENTS_SCHEMA`).

        Raises:
            UserError: a part is empty, cannot be read or breaks off.
        """
        lines = Lines()
        rejected: list[dict[str, str]] = []
        vocabulary: set[str] = set()
        block: list[str] = []
        kept, size = self._kept(lines, rejected), self.config.words_per_segment
        for words in cut(kept, size, self.config.min_words) if size is not None else kept:
            vocabulary.update(words)
            block.append(" ".join(words)[: self.config.max_characters].rstrip())
            if len(block) == self.config.shard_segments:
                yield pa.table({"texts": [block]}, SEGMENTS_SCHEMA)
                block = []
        if block:
            yield pa.table({"texts": [block]}, SEGMENTS_SCHEMA)
        lines.words = len(vocabulary)
        self._write(lines, rejected, vocabulary)

    def _kept(self, lines: Lines, rejected: list[dict[str, str]]) -> Iterator[list[str]]:
        """The words of each line that is used."""
        seen: set[bytes] = set()
        for name, number, raw in self._raw_lines():
            lines.read += 1
            try:
                line = clean_line(raw)
            except RejectedError as error:
                lines.rejects[error.reason] += 1
                if len(rejected) < _MOST_REJECTS_KEPT:
                    place = {"id": f"{name}:{number}", "path": name}
                    rejected.append({**place, "reason": error.reason, "detail": error.detail})
                continue
            words = line.split(" ")
            if not has_words(words, self.config.min_words):
                lines.short += 1
                continue
            encoded = line.encode()
            if self.config.deduplicate:
                fingerprint = hashlib.blake2b(encoded, digest_size=8).digest()
                if fingerprint in seen:
                    lines.duplicate += 1
                    continue
                seen.add(fingerprint)
            lines.kept += 1
            lines.bytes += len(encoded)
            yield [_VERSE_NUMBER.sub("", word, count=1) if word[0].isdigit() else word for word in words]
            if self.config.max_bytes is not None and lines.bytes >= self.config.max_bytes:
                return

    def _raw_lines(self) -> Iterator[tuple[str, int, bytes | str | None]]:
        for part in self.parts:
            number = 0
            for number, raw in part.lines():
                yield part.name, number, raw
            if not number:
                raise UserError(f"{part.name}: has no line; remove it from text.source or get it again")

    def _write(self, lines: Lines, rejected: list[dict[str, str]], vocabulary: set[str]) -> None:
        schema = pa.schema([(name, pa.string()) for name in REJECT_COLUMNS])
        packed = gzip.compress("".join(f"{word}\n" for word in sorted(vocabulary)).encode(), mtime=0)
        storage.write_bytes(storage.join(self.folder, WORDS_FILE), packed)
        write_parquet(pa.Table.from_pylist(rejected, schema), storage.join(self.folder, REJECTS_FILE))
        storage.write_text(storage.join(self.folder, LINES_FILE), json.dumps(vars(lines), ensure_ascii=False))


def clean_line(raw: bytes | str | None) -> str:
    """A raw line in NFC with single spaces; empty for one without text.

    Raises:
        RejectedError: it is too long, not UTF-8, has NUL characters, or nothing but control characters.
    """
    if raw is None:
        raise RejectedError(LINE_TOO_LONG)
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw.encode().decode()  # JSON can hold halves of characters
    except UnicodeError as error:
        raise RejectedError(NOT_UTF8, str(error)[:100]) from None
    if "\0" in text:
        raise RejectedError(NUL_CHARACTERS)
    words = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").split()
    line = unicodedata.normalize("NFC", " ".join(words))
    if line and all(character == " " or unicodedata.category(character) == "Cc" for character in line):
        raise RejectedError(CONTROL_CHARACTERS)
    return line


def has_words(words: Iterable[str], wanted: int) -> bool:
    """Whether so many of the words hold a letter."""
    for word in words:
        wanted -= _LETTER.search(word) is not None
        if wanted <= 0:
            return True
    return False


def cut(lines: Iterable[list[str]], size: int, least: int) -> Iterator[list[str]]:
    """The words of all lines in segments of `size`; the last words make a shorter one if they are `least` or more."""
    pending: list[str] = []
    for words in lines:
        pending += words
        whole = len(pending) - len(pending) % size
        for start in range(0, whole, size):
            yield pending[start : start + size]
        pending = pending[whole:]
    if len(pending) >= least:
        yield pending
