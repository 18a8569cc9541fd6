"""Names of languages as data sets write them, turned into Whisper's codes."""

import re
from functools import lru_cache

from raykd.errors import UserError

_ALIASES = {
    "cmn": "zh",
    "fil": "tl",
    "filipino": "tl",
    "iw": "he",
    "jv": "jw",
    "nb": "no",
    "nob": "no",
    "norwegian bokmål": "no",
}
_CANTONESE = frozenset({"yue", "cantonese"})
_RELATIVES = """
min nan hokkien teochew hakka hak wu wuu shanghainese gan xiang hsn jin cjy cdo mnp lzh
low old ancient pidgin creole crimean non
"""
_OTHERS = frozenset(_RELATIVES.split())
"""These tell that a language is another than the one that is named beside them: Min Nan Chinese, Low German."""
_SEVERAL = re.compile(r"[,;/&+|]|\band\b")


@lru_cache(maxsize=1024)
def whisper_code(name: str) -> str | None:
    """Whisper's code of a language: `cs` for "cs", "cs-CZ", "cs_cz", "Czech" or "czech"; None for one that Whisper lacks, and
    for several ("English, French") unless all names are of one ("Spanish; Castilian")."""
    key = " ".join(name.strip().lower().split())
    codes = {_code_of(part.strip()) for part in _SEVERAL.split(key)}
    return codes.pop() if len(codes) == 1 else None


def _code_of(key: str) -> str | None:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    known = TO_LANGUAGE_CODE | {code: code for code in LANGUAGES} | _ALIASES
    if key in known:
        return known[key]
    words = set(re.split(r"[\W_]+", key))
    if words & _CANTONESE:
        return "yue"
    if words & _OTHERS:
        return None
    base = key.replace("_", "-").partition("-")[0]
    if base in LANGUAGES or base in _ALIASES:
        return known[base]
    return TO_LANGUAGE_CODE.get(key.split(" ")[-1])  # "Mandarin Chinese", "Latin American Spanish"


def configured_language(name: str | None, key: str) -> str | None:
    """The code of a language given in the config under `key`.

    Raises:
        UserError: Whisper does not know it.
    """
    if name is None:
        return None
    code = whisper_code(name)
    if code is None:
        raise UserError(f"{key}: `{name}` is no language that Whisper knows; give a code such as cs")
    return code
