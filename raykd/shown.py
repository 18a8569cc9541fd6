"""Text as it may be shown: without secrets, and without characters that a terminal would obey."""

import re
from collections.abc import Mapping
from typing import Any

_HIDDEN = "***"
_PORT = r"(?<=[^/]:)\d{1,5}[,;:.)\]>\"']*(?:[\s/?#]|$)"
_PASSWORD = r"(?:(?:(?!\w://)\S)*@|(?:(?!\w://)[^\n])*@)"
"""Up to the last `@` of the word, or, where the word has none, of the line; no address that follows is gone over."""
_USER_INFO = re.compile(rf"([A-Za-z][\w+.-]*://)(?:([^\s:/?#\"']*:)(?!{_PORT}|\s){_PASSWORD}|[^\s:/?#\"']*@)")
_QUERY = re.compile(
    r"([?&;](?:[^=&;\s\"']*(?:pass|pwd|secret|token|key|sig|sas|cred|auth|jwt)[^=&;\s\"']*|code)=)"
    r"(?:\"[^\"\n]*\"|'[^'\n]*'|(?:[^&;\s\"']|[\"'](?=\w))+)",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""All but tab and newline; also what turns the direction of writing, which hides as well as any."""


def without_secrets(text: str) -> str:
    """Passwords, keys and tokens in addresses as `***`: `http://user:***@host`, `?password=***`. A user's name stays, but where
    it stands alone it may be a token, and goes too. A password may hold what an address cannot, such as `/` or `#`: databases'
    libraries take it."""
    if "://" not in text:
        return text

    hidden = _USER_INFO.sub(lambda found: f"{found[1]}{found[2] or ''}{_HIDDEN}@", text)
    return _QUERY.sub(rf"\1{_HIDDEN}", hidden)


def tree_without_secrets(value: Any) -> Any:
    """`without_secrets` of all texts in mappings and lists."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: tree_without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tree_without_secrets(item) for item in value]
    return value


def printable(text: str) -> str:
    """Control characters by their codes (`\\x1b`), but for tabs and newlines."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def shown(text: str) -> str:
    """For people: `without_secrets` and `printable`."""
    return printable(without_secrets(text))
