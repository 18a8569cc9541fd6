"""Sources written as one string, for speech and text alike."""

from collections.abc import Callable
from typing import Any

from pydantic import BeforeValidator

from raykd.errors import UserError


def source_shorthand(kind_of: Callable[[str], str]) -> BeforeValidator:
    """Reads `demo`, `hf:NAME` or a path as a source. A source without a `kind` gets the one that its `path` alone would have.

    `kind_of` tells the kind of a path and raises `UserError` where it cannot.
    """

    def read(value: Any) -> Any:
        if isinstance(value, dict) and "kind" not in value and isinstance(value.get("path"), str):
            return {**value, **read(value["path"])}
        if not isinstance(value, str):
            return value
        if value == "demo":
            return {"kind": "demo"}
        if value.startswith("hf:"):
            return {"kind": "huggingface", "path": value[3:]}
        try:
            return {"kind": kind_of(value), "path": value}
        except UserError as error:
            raise ValueError(str(error)) from None  # pydantic adds the key path and goes on to the next mistake

    return BeforeValidator(read)


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


ONE_OR_MORE = BeforeValidator(_one_or_more)
"""A single value stands for a list of it."""
