"""What stands in transcripts and was not spoken: tokens of models, tags for punctuation, and names of noises."""

import re

_TOKENS = re.compile(r"<\|[^|<>]{0,40}\|>")
"""Whisper's own: `<|en|>`, `<|0.00|>`, `<|nospeech|>`."""
_PUNCTUATION = {"comma": ",", "period": ".", "questionmark": "?", "exclamationpoint": "!"}
"""Tags of GigaSpeech and of data made like it."""
_TAG = re.compile(r"\s*[<{]/?([A-Za-z][\w:./-]{0,30})(?:[ =][^<>{}]{0,40})?/?[>}]")
_BRACKETS = re.compile(r"\s*\[[^\[\]]{1,40}\]")
_NOISES = re.compile(
    r"\s*\((?:[\w' -]*\b)?(?:laugh\w*|chuckl\w*|giggl\w*|applau\w*|clap\w*|cheer\w*|cough\w*|sneez\w*|sigh\w*|breath\w*|"
    r"sniff\w*|music\w*|singing|nois\w*|static|beep\w*|silence|pause\w*|inaudible|unintelligible|indistinct|crosstalk|foreign|"
    r"unclear|smích|potlesk|hudba|lachen|gelächter|applaus|musik|rires?|applaudissements|musique|risas|aplausos|música|risate|"
    r"applausi)(?:\b[\w' -]*)?\)",
    re.IGNORECASE,
)
"""In parentheses, where transcripts have words that were spoken as well, only what is named."""


def without_markers(text: str) -> str:
    """The text without them: punctuation tags become punctuation, all else goes. Text without any stays as it is."""
    if not re.search(r"[<\[({]", text):
        return text
    cleaned = _TOKENS.sub(" ", text)
    cleaned = _TAG.sub(lambda tag: _PUNCTUATION.get(tag[1].lower(), " "), cleaned)
    cleaned = _NOISES.sub(" ", _BRACKETS.sub(" ", cleaned))
    return text if cleaned == text else " ".join(cleaned.split())
