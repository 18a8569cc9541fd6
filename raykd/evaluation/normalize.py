"""Whisper's text normalisers, chosen by language and named, so that every WER says what it was measured on.

The English normaliser (spelling, contractions, numbers) and the basic one (lower case, no symbols) are Radford et al. 2022,
appendix C, as transformers ships them. The English spelling map always comes from the installed `openai-whisper` package,
not from `normalizer.json` in the tokenizer folder: many folders have none, and a score must not depend on the folder.

The basic normaliser replaces combining marks (Unicode category M) with spaces, which cuts words of Indic scripts and of Thai at
their vowel signs. That is Whisper's own behaviour and is kept, so that numbers compare with published ones.
"""

import importlib.util
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from raykd.errors import UserError

NormalizerChoice = Literal["auto", "english", "basic", "none"]
Normalizer = Callable[[str], str]

UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Written without spaces between words, so that an error rate over letters stands for the one over words. Whisper's paper
splits Chinese, Japanese, Thai, Lao and Burmese; Cantonese and Khmer are written the same way. Tibetan marks its syllables with
a character that the basic normaliser already turns into a space."""


def normalizer_for(choice: NormalizerChoice, language: str) -> tuple[str, Normalizer]:
    """The name of the normaliser of a language, and the normaliser: text in, words with single spaces between them out.

    `auto` is `english` for `en` and `basic` elsewhere; `none` only trims and joins white space.

    Raises:
        UserError: the English spelling map is not installed.
    """
    if choice == "none":
        return "none", _single_spaces
    if choice == "english" or (choice == "auto" and language == "en"):
        return "whisper-english", _trimmed(_english())
    if splits_letters(choice, language):
        return "whisper-basic-letters", _trimmed(BasicTextNormalizer(split_letters=True))
    return "whisper-basic", _trimmed(BasicTextNormalizer())


def splits_letters(choice: NormalizerChoice, language: str) -> bool:
    """Whether the normaliser puts a space between any two letters of this language."""
    return choice in {"auto", "basic"} and language in UNSPACED_LANGUAGES


def _trimmed(normalize: Normalizer) -> Normalizer:
    return lambda text: _single_spaces(normalize(text))


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


@lru_cache(maxsize=1)
def _english() -> EnglishTextNormalizer:
    # Found without importing the package, which would compile numba code.
    spec = importlib.util.find_spec("whisper")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "normalizers" / "english.json"
        if file.is_file():
            return EnglishTextNormalizer(json.loads(file.read_text("utf-8")))
    raise UserError("evaluation.normalizer: english.json of openai-whisper not found; install that package, or choose basic")
