"""Text to label ids and back, with Whisper's own tokenizer and prefix tokens."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raykd import storage
from raykd.errors import UserError

if TYPE_CHECKING:
    from transformers import WhisperTokenizer

_ENGLISH_ONLY_EOT = 50256
"""End-of-text id of the English-only vocabulary (GPT-2's own); the multilingual one has 50257."""
_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "km", "yue", "bo"})
"""Languages written without spaces between words."""
_UNSEEN = re.compile(
    r"[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)
"""Control characters that are no white space, soft hyphens, marks of byte order and of the direction of writing, and what has
no width. The joiners U+200C and U+200D are not among them: they change how letters look."""


class LabelEncoder:
    """Whisper labels for transcription without timestamps.

    Picklable; the tokenizer is loaded at first use, once a process. Where words are separated by spaces the text starts with
    one, as in Whisper's own output, so that teacher and label agree on the first token.
    """

    def __init__(self, tokenizer: str, revision: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.revision = revision

    def __reduce__(self) -> tuple[type["LabelEncoder"], tuple[str, str | None]]:
        return LabelEncoder, (self.tokenizer, self.revision)

    def token_names(self) -> dict[int, str]:
        """Each token as the vocabulary spells it."""
        return {number: name for name, number in self._backend.get_vocab().items()}

    def encode(self, text: str, language: str) -> list[int]:
        """The whole sequence: `prefix(language)`, text tokens, end of text. A token's name in the text is text.

        Raises:
            ValueError: the vocabulary has no such language.
        """
        return self.encode_all([text], language)[0]

    def encode_all(self, texts: Sequence[str], language: str) -> list[list[int]]:
        """`encode` of each of the texts, which is several times faster for many at once.

        Raises:
            ValueError: the vocabulary has no such language.
        """
        prefix, eot_id = self.prefix(language), self.eot_id
        space = self.between_texts(language)
        spoken = [space + text.strip() for text in texts]
        sequences = self._backend(spoken, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [[*prefix, *ids, eot_id] for ids in sequences]

    def prefix(self, language: str, timestamps: bool = False) -> list[int]:
        """`[sot, <|language|>, transcribe, notimestamps]`, or `[sot, notimestamps]` with an English-only vocabulary.

        With `timestamps` the last one is left out: the text then starts with the time of its first word.

        Raises:
            ValueError: the vocabulary has no such language.
        """
        if language not in self.languages:
            raise ValueError(f"{language!r} is not a language of {self.tokenizer}")
        names = ["<|startoftranscript|>", "<|notimestamps|>"]
        if not self._english_only:
            names[1:1] = [f"<|{language}|>", "<|transcribe|>"]
        if timestamps:
            names.pop()
        return [self._vocabulary[name] for name in names]

    def between_texts(self, language: str) -> str:
        """What stands between two texts of a language: a space where words are separated by spaces."""
        return "" if language in _WITHOUT_SPACES else " "

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The text of label ids, no space at either end. Special tokens are dropped or, but for timestamps, kept by name."""
        return str(self._backend.decode(list(ids), skip_special_tokens=not keep_special)).strip()

    def merged_from(self, number: int) -> tuple[int, int]:
        """The two tokens that a token of text was merged from. Raises KeyError: it is a byte, or no text."""
        return self._merges[number]

    @cached_property
    def _merges(self) -> dict[int, tuple[int, int]]:
        described, ids = json.loads(self._backend.backend_tokenizer.to_str()), self._vocabulary
        pairs = [one.split(" ") if isinstance(one, str) else one for one in described["model"]["merges"]]
        return {ids[left + right]: (ids[left], ids[right]) for left, right in reversed(pairs)}

    @cached_property
    def languages(self) -> frozenset[str]:
        """Codes of the languages that can be encoded, such as `cs`."""
        return frozenset({"en"}) if self._english_only else self._language_tokens

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the vocabulary: equal for tokenizers that give equal labels, wherever they lie."""
        return hashlib.sha256(json.dumps(sorted(self._vocabulary.items())).encode()).hexdigest()[:16]

    @cached_property
    def starts_word(self) -> NDArray[np.bool_]:
        """For each token whether a word starts with it: it holds a space in front, or it is a special token.

        In languages written without spaces hardly any does.
        """
        space = "Ġ"  # how the byte-level vocabulary writes a leading space
        starts = np.zeros(max(self._vocabulary.values()) + 1, np.bool_)
        starts[[token_id for token, token_id in self._vocabulary.items() if token.startswith((space, "<|"))]] = True
        return starts

    @property
    def timestamp_id(self) -> int:
        """Id of `<|0.00|>`; the next ones follow at steps of 20 ms."""
        return self._vocabulary["<|notimestamps|>"] + 1

    @property
    def no_speech_id(self) -> int:
        """Id of `<|nospeech|>` (in older vocabularies `<|nocaptions|>`), which stands before `<|notimestamps|>` in all."""
        return self._vocabulary["<|notimestamps|>"] - 1

    @property
    def previous_id(self) -> int:
        """Id of `<|startofprev|>`: before what was said before."""
        return self._vocabulary["<|startofprev|>"]

    @property
    def eot_id(self) -> int:
        """Id of the end-of-text token."""
        return self._vocabulary["<|endoftext|>"]

    @property
    def pad_id(self) -> int:
        """Id that fills decoder inputs after their end; Whisper has no token of its own for it and uses end of text."""
        return self.eot_id

    @cached_property
    def _english_only(self) -> bool:
        return self.eot_id == _ENGLISH_ONLY_EOT or not self._language_tokens

    @cached_property
    def _language_tokens(self) -> frozenset[str]:
        from transformers.models.whisper.tokenization_whisper import LANGUAGES

        return frozenset(code for code in LANGUAGES if f"<|{code}|>" in self._vocabulary)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        vocabulary = self._backend.get_vocab()
        needed = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")
        missing = [name for name in needed if name not in vocabulary]
        if missing:
            raise UserError(
                f"{self.tokenizer}: not a Whisper tokenizer, it has no {missing[0]}; give the folder or hub id of a Whisper"
            )
        return vocabulary

    @property
    def _backend(self) -> "WhisperTokenizer":
        return _load_tokenizer(self.tokenizer, self.revision)


def clean(text: str | None) -> str:
    """A transcript with composed characters (NFC) and single spaces, without characters that nobody sees."""
    return " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", text or "")).split())


@lru_cache(maxsize=4)
def _load_tokenizer(tokenizer: str, revision: str | None) -> "WhisperTokenizer":
    from transformers import WhisperTokenizer

    at_hand = storage.local_copy(tokenizer) if "://" in tokenizer else nullcontext(tokenizer)
    try:
        with at_hand as source:
            return WhisperTokenizer.from_pretrained(source, revision=revision or "main")
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{tokenizer}: its Whisper tokenizer cannot be loaded ({reason}); give a folder or hub id that has one"
        ) from None
