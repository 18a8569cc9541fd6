"""Text as it may be shown: without secrets, and without characters that a terminal would obey."""

import re
from collections.abc import Mapping
from typing import Any

_HIDDEN = "***"
_USER_INFO = re.compile(r"([A-Za-z][\w+.-]*://)([^/\s\"'?#]*)@")
_QUERY = re.compile(r"([?&;][^=&;\s\"']*(?:pass|pwd|secret|token|key|sig|cred|auth)[^=&;\s\"']*=)[^&;#\s\"']+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""All but tab and newline; also what turns the direction of writing, which hides as well as any."""


def without_secrets(text: str) -> str:
    """Passwords, keys and tokens in addresses as `***`: `http://user:***@host`, `?password=***`. A user's name stays, but where
    it stands alone it may be a token, and goes too."""
    if "://" not in text:
        return text

    def user_info(found: re.Match[str]) -> str:
        user, colon, _ = found[2].partition(":")
        return f"{found[1]}{user + colon if colon else ''}{_HIDDEN}@"

    return _QUERY.sub(rf"\1{_HIDDEN}", _USER_INFO.sub(user_info, text))


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
