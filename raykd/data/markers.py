"""What stands in transcripts and was not spoken: tokens of models, tags for punctuation, and names of noises."""

import re

_BRACKET = re.compile(r"[<\[({（]")
_TOKENS = re.compile(r"<\|[^|<>]{0,40}\|>|\{\\[^{}]{0,80}\}")
"""Whisper's own: `<|en|>`, `<|0.00|>`, `<|nospeech|>`; and where subtitles stand: `{\\an8}`."""
_PUNCTUATION = {"comma": ",", "period": ".", "questionmark": "?", "exclamationpoint": "!"}
"""Tags of GigaSpeech and of data made like it."""
_VALUE = r"=(?:\"[^\"<>]{0,40}\"|'[^'<>]{0,40}'|[^\s<>{}]{0,40})"
_NAMED_TAG = rf"([A-Za-z][\w:./-]{{0,30}})(?:{_VALUE})?(?:\s+[\w:-]{{1,30}}{_VALUE})*"
_TAG = re.compile(rf"\s*[<{{]/?(?:{_NAMED_TAG}|v(?:\.\w+)* [^<>{{}}=]{{1,40}})\s*/?[>}}]")
"""A name, alone or with values; or a speaker of WebVTT's (`<v Bob>`). Prose between brackets is none: `x<y and y>z`."""
_SPOKEN = re.compile(r"\(\(([^()]*)\)\)|\[laughter-([^\[\]]+)\]", re.IGNORECASE)
"""Words that somebody said unclearly (a transcriber's best guess) or laughing, as Fisher and Switchboard have them."""
_BRACKETS = re.compile(r"\s*\[[^\[\]]{1,40}\]")
_MAYBE_NOISES = re.compile(r"\s*(?:(?<!\()\(([^()]{1,60})\)(?!\))|（([^（）]{1,60})）|<([^<>]{1,60})>|\{([^{}]{1,60})\})")
_BETWEEN_WORDS = re.compile(r"\W+(?:(?:in|and|an?)\W+)*")
_NAMED = """
laugh laughs laughed laughing laughter chuckle chuckles chuckling giggle giggles giggling applause applauds applauding clap
claps clapping cheer cheers cheering cough coughs coughing sneeze sneezes sneezing sigh sighs sighing breath breaths breathes
breathing sniff sniffs sniffing sniffle sniffles music singing noise noises static beep beeps beeping silence pause pauses
inaudible unintelligible indistinct crosstalk foreign unclear smích potlesk hudba lachen gelächter applaus musik rire rires
applaudissements musique risa risas aplausos música risas risate applausi musica смех аплодисменты музыка
笑 笑い 笑声 拍手 掌声 音楽 音乐 웃음 박수 음악
"""
_WITH_THEM = """
audience background classical continues crowd dramatic ends fades gentle group heavily heavy language languages light lightly
loud loudly nervous nervously off playing plays quiet quietly short soft softly sound sounds speaker speaking speech starts
stops talking theme upbeat voice voices word words
"""
_NOISES = frozenset(_NAMED.split())
_SAID_OF_NOISES = frozenset(_WITH_THEM.split())


def without_markers(text: str) -> str:
    """The text without them: punctuation tags become punctuation, all else goes. Text without any stays as it is.

    In parentheses, where transcripts have words that were spoken as well, only names of noises are markers: `(soft music)`, and
    not `(music by Bach)`. Of `((words))`, a transcriber's best guess, the words stay.
    """
    if not _BRACKET.search(text):
        return text
    cleaned = _TAG.sub(lambda tag: _PUNCTUATION.get((tag[1] or "").lower(), " "), _TOKENS.sub(" ", text))
    cleaned = _SPOKEN.sub(lambda found: f" {found[1] or found[2] or ''} ", _MAYBE_NOISES.sub(_without_noises, cleaned))
    cleaned = _BRACKETS.sub(" ", cleaned)
    return text if cleaned == text else " ".join(cleaned.split())


def _without_noises(found: re.Match[str]) -> str:
    inside = next(group for group in found.groups() if group is not None)
    words = set(_BETWEEN_WORDS.split(inside.strip(" .,!?…-").lower()))
    return " " if words & _NOISES and words <= _NOISES | _SAID_OF_NOISES else found[0]
