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


_MARKED = "am ar as bn bo fa gu he hi hy km kn ln lo ml mr my ne pa ps sa sd si ta te th ug ur yi"
_WITH_APOSTROPHES = "af be br ca cy fr ha haw it mg mi oc sn so sq sw tl tt uk uz yo"
_WITH_STRESS = "ba bg kk mk mn ru sr tg"
_WITH_TWO_LETTERS_FOR_ONE = "az ro tr"
MARKED_LANGUAGES = frozenset(f"{_MARKED} {_WITH_APOSTROPHES} {_WITH_STRESS} {_WITH_TWO_LETTERS_FOR_ONE}".split())
"""Languages whose words marks tell apart; those that write apostrophes inside of words, or stress marks for learners; and those
where one letter comes as two characters, or in a case that `str.lower` does not know."""
_APOSTROPHES = {**dict.fromkeys(map(ord, "’‘‛ʼʻʽˈ`´ꞌ＇′՚"), "'"), ord("ŉ"): "'n"}
_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u055b\u055c\u055e]"
    "|(?<=[\u0400-\u04ff])[\u0300\u0301]"
)
"""Vowel points of Hebrew and Arabic, the stroke that lengthens a letter, marks for the tone of a sentence that Armenian has
within a word, and stress over a Cyrillic letter: the same word is written with and without them."""
_DOTS = str.maketrans({"İ": "i", "I": "ı"})
_PERSIAN = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک"})
_ROMANIAN = str.maketrans({"ş": "ș", "ţ": "ț", "Ş": "Ș", "Ţ": "Ț"})
_LETTERS: dict[str, dict[int, str]] = {"az": _DOTS, "tr": _DOTS, "fa": _PERSIAN, "ur": _PERSIAN, "ro": _ROMANIAN}
"""By language, characters that stand for another one: before letters are made small, or because keyboards differ."""
_ONE_LETTER = {
    "i\u0307": "i",  # how Python and others make the Turkish İ small
    **{f"{letter}\u0d4d\u200d": chillu for letter, chillu in zip("ണനരലളകമയഴ", "ൺൻർൽൾൿൔൕൖ", strict=True)},
    "\u09a4\u09cd\u200d": "\u09ce",
}
"""Letters that older texts write with several characters: chillus of Malayalam, the khanda ta of Bengali."""
_SEVERAL = re.compile("|".join(_ONE_LETTER))
_TONE_BEFORE_AM = re.compile("([\u0e48-\u0e4b\u0ec8-\u0ecb])([\u0e4d\u0ecd])(?=[\u0e32\u0eb2])")
"""In Thai and Lao the tone mark of a syllable in `ำ` may be typed on either side of its circle."""


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
        letters, table = splits_letters(choice, language), _LETTERS.get(language, {})
        name = "basic-marks-letters" if letters else "basic-marks"
        return name, _trimmed(lambda text: basic_with_marks(unicodedata.normalize("NFC", text).translate(table), letters))
    if splits_letters(choice, language):
        return "whisper-basic-letters", _trimmed(BasicTextNormalizer(split_letters=True))
    return "whisper-basic", _trimmed(BasicTextNormalizer())


def splits_letters(choice: NormalizerChoice, language: str) -> bool:
    """Whether the normaliser puts a space between any two letters of this language."""
    return choice in {"auto", "basic"} and language in UNSPACED_LANGUAGES


def basic_with_marks(text: str, split_letters: bool = False) -> str:
    """Whisper's basic normaliser, but: marks stay with their letters, those that are written or not as one likes go, a letter
    is one however it is typed, apostrophes are alike, and characters without a width go. With `split_letters` what a reader
    takes for a letter stays whole.
    """
    text = re.sub(r"[<\[][^>\]]*[>\]]", "", text.lower())
    text = re.sub(r"\(([^)]+?)\)", "", text)
    text = _OPTIONAL.sub("", unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)))
    text = _TONE_BEFORE_AM.sub(r"\2\1", _SEVERAL.sub(lambda found: _ONE_LETTER[found[0]], text))
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
