"""The words of a language, from a file or a text corpus: which words of a hypothesis are not among them.

A recogniser that spells by ear writes words that do not exist. WER cannot tell them from real words that were not said; their
share of all hypothesis words can.
"""

import gzip
import hashlib
import unicodedata
import zlib
from functools import cached_property, lru_cache

from pyarrow import fs

from raykd import storage
from raykd.data.corpus import WORDS_FILE
from raykd.errors import UserError
from raykd.evaluation.normalize import Normalizer, NormalizerChoice, normalizer_for

WORDS_FILES = (WORDS_FILE, "words.txt")
"""Names of the words file in a folder, the first that is there counts."""
_CHUNK = 10_000
"""Words normalised as one text: a normaliser takes about as long for a word as for a line."""
_APART = "xqx"
"""No word, no number: put between words where the normaliser would join numbers ("twenty one" is 21 in English)."""
_BRACKETS = str.maketrans(dict.fromkeys("<>[]()", " "))
"""Normalisers drop what is in brackets; a word that was written in brackets is still a word."""


class Vocabulary:
    """Words of one language, or of all that are evaluated together, as they are written in texts."""

    def __init__(self, text: str) -> None:
        """From words with white space between them."""
        self._text = text
        self._known: dict[str, frozenset[str]] = {}

    @classmethod
    def load(cls, path: str) -> "Vocabulary":
        """From a file with one word a line (.txt, .txt.gz, UTF-8), or a folder that holds one as `words.txt.gz`: a text corpus,
        or a masked language model. Local, or on any pyarrow filesystem. Kept in memory until the file changes.

        Raises:
            UserError: nothing there, no words in it, not UTF-8, or broken compression.
        """
        file = _words_file(path)
        info = _info(file)
        return _load(file, info.size, info.mtime_ns)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the words: scores under equal ones compare."""
        return hashlib.blake2b(self._text.encode("utf-8"), digest_size=8).hexdigest()

    def known(self, language: str, choice: NormalizerChoice = "auto") -> frozenset[str]:
        """The words as the language's normaliser writes them in hypotheses."""
        name, normalize = normalizer_for(choice, language)
        if name not in self._known:
            self._known[name] = frozenset(_normalized(self._text, name, normalize))
        return self._known[name]

    def invalid(self, hypothesis: str, language: str, choice: NormalizerChoice = "auto") -> tuple[str, ...]:
        """The words of a normalised hypothesis that are not in the vocabulary, in their order, repeated as they are said.

        Words with a digit are numbers, and never invalid: no text holds them all.
        """
        known = self.known(language, choice)
        return tuple(word for word in hypothesis.split() if word not in known and _is_spelled(word))


def _is_spelled(word: str) -> bool:
    return any(map(str.isalpha, word)) and not any(map(str.isdigit, word))


def _normalized(text: str, name: str, normalize: Normalizer) -> set[str]:
    """The distinct words of a text, normalised."""
    if name == "none":
        return set(text.split())
    text = unicodedata.normalize("NFKC", text.lower())
    if name == "whisper-basic":
        # From here on it changes each letter by itself, so the letters tell what becomes of millions of words in seconds.
        return set(text.translate({ord(letter): normalize(letter) or " " for letter in set(text)}).split())
    known: set[str] = set()
    words = sorted(set(text.translate(_BRACKETS).split()))
    separator = f" {_APART} " if name in {"whisper-english", "english-apostrophes"} else " "
    for begin in range(0, len(words), _CHUNK):
        known.update(normalize(separator.join(words[begin : begin + _CHUNK])).split())
    return known - {_APART}


def _info(path: str) -> fs.FileInfo:
    filesystem, inner = storage.filesystem_of(path)
    return filesystem.get_file_info(inner)


def _words_file(path: str) -> str:
    """The file itself, or the words file in the folder."""
    kind = _info(path).type
    if kind == fs.FileType.NotFound:
        raise UserError(
            f"evaluation.vocabulary: {path} does not exist; give a file with one word a line, or a folder that has one"
        )
    if kind != fs.FileType.Directory:
        return path
    for name in WORDS_FILES:
        if storage.exists(storage.join(path, name)):
            return storage.join(path, name)
    raise UserError(
        f"evaluation.vocabulary: {path} has no {WORDS_FILES[0]}; give a text corpus, a masked language model or a file"
    )


@lru_cache(maxsize=2)
def _load(file: str, size: int | None, changed_ns: int | None) -> Vocabulary:
    """The words of a file as it is at a time: with `size` and `changed_ns` in the key, a changed file is read again."""
    try:
        data = storage.read_bytes(file)
        text = (gzip.decompress(data) if file.partition("?")[0].endswith(".gz") else data).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"evaluation.vocabulary: {file} is not UTF-8 text; give one word a line") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"evaluation.vocabulary: {file} cannot be read ({reason}); give an unbroken file") from None
    if not text.strip():
        raise UserError(f"evaluation.vocabulary: {file} holds no words; give one word a line")
    return Vocabulary(text)
