"""Whisper's text normalisers, chosen by language and named, so that every WER says what it was measured on.

The English normaliser (spelling, contractions, numbers) and the basic one (lower case, no symbols) are Radford et al. 2022,
appendix C, as transformers ships them. The English spelling map always comes from the installed `openai-whisper` package,
not from `normalizer.json` in the tokenizer folder: many folders have none, and a score must not depend on the folder.

The basic normaliser replaces combining marks (Unicode category M) with spaces: in Indic scripts and Thai these are the vowels,
so that it takes `कि` and `की` for the same word. And it knows the apostrophe as a symbol alone, not as the letter that
Ukrainian and others write it with; the English one knows `don't` and not `don’t`. So `auto` has normalisers of ours where that
matters, under names of their own. On all other text they do what Whisper's do, which a test compares. `english` and `basic`
are Whisper's own, for numbers that are to compare with published ones.
"""

import importlib.util
import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import regex
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from raykd.errors import UserError

NormalizerChoice = Literal["auto", "english", "basic", "none"]
Normalizer = Callable[[str], str]

UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Written without spaces between words, so that an error rate over letters stands for the one over words. Whisper's paper
splits Chinese, Japanese, Thai, Lao and Burmese; Cantonese and Khmer are written the same way. Tibetan marks its syllables with
a character that the basic normaliser already turns into a space."""


_MARKED = "am ar as bn bo fa gu he hi km kn lo ml mr my ne pa ps sa sd si ta te th ug ur yi"
_WITH_APOSTROPHES = "be br ca fr haw it mi oc uk uz yo"
MARKED_LANGUAGES = frozenset(f"{_MARKED} {_WITH_APOSTROPHES}".split())
"""Languages whose words marks tell apart, and those that write apostrophes inside of words."""
_APOSTROPHES = dict.fromkeys(map(ord, "’‘‛ʼʻʽˈ`´ꞌ＇′՚"), "'")
_OPTIONAL = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]")
"""Vowel points of Hebrew and Arabic, and the stroke that lengthens a letter: the same word is written with and without them."""


def normalizer_for(choice: NormalizerChoice, language: str) -> tuple[str, Normalizer]:
    """The name of the normaliser of a language, and the normaliser: text in, words with single spaces between them out.

    `auto` is `english` for `en`, with all apostrophes alike, and elsewhere `basic`, but for `MARKED_LANGUAGES`, whose marks are
    kept; `none` only trims and joins white space.

    Raises:
        UserError: the English spelling map is not installed.
    """
    if choice == "none":
        return "none", _single_spaces
    if choice == "auto" and language == "en":
        english = _english()
        return "english-apostrophes", _trimmed(lambda text: english(text.translate(_APOSTROPHES)))
    if choice == "english":
        return "whisper-english", _trimmed(_english())
    if choice == "auto" and language in MARKED_LANGUAGES:
        letters = splits_letters(choice, language)
        name = "basic-marks-letters" if letters else "basic-marks"
        return name, _trimmed(lambda text: basic_with_marks(text, letters))
    if splits_letters(choice, language):
        return "whisper-basic-letters", _trimmed(BasicTextNormalizer(split_letters=True))
    return "whisper-basic", _trimmed(BasicTextNormalizer())


def splits_letters(choice: NormalizerChoice, language: str) -> bool:
    """Whether the normaliser puts a space between any two letters of this language."""
    return choice in {"auto", "basic"} and language in UNSPACED_LANGUAGES


def basic_with_marks(text: str, split_letters: bool = False) -> str:
    """Whisper's basic normaliser, but: marks stay with their letters, those that are written or not as one likes go,
    apostrophes are alike, and characters without a width go. With `split_letters` what a reader takes for a letter stays whole.
    """
    text = re.sub(r"[<\[][^>\]]*[>\]]", "", text.lower())
    text = re.sub(r"\(([^)]+?)\)", "", text)
    text = _OPTIONAL.sub("", unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)))
    text = "".join(_shown(character) for character in text).lower()
    return " ".join(regex.findall(r"\X", text)) if split_letters else text


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category in {"Cf", "Me"} or "\ufe00" <= character <= "\ufe0f":
        return ""
    return " " if category[0] in "SP" else character


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
