"""Names of languages as data sets write them, turned into Whisper's codes."""

from functools import lru_cache

from raykd.errors import UserError

_ALIASES = {
    "cantonese chinese": "yue",
    "cmn": "zh",
    "fil": "tl",
    "filipino": "tl",
    "iw": "he",
    "jv": "jw",
    "nb": "no",
    "nob": "no",
    "norwegian bokmål": "no",
}


@lru_cache(maxsize=1024)
def whisper_code(name: str) -> str | None:
    """Whisper's code of a language: `cs` for "cs", "cs-CZ", "cs_cz", "Czech" or "czech"; None for one that Whisper lacks."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    key = " ".join(name.strip().lower().split())
    base = key.replace("_", "-").partition("-")[0]
    for candidate in (key, base):
        if candidate in _ALIASES:
            return _ALIASES[candidate]
        if candidate in LANGUAGES:
            return candidate
    # "Mandarin Chinese", "Latin American Spanish": the last word is the language.
    return TO_LANGUAGE_CODE.get(key) or TO_LANGUAGE_CODE.get(key.split(" ")[-1])


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
