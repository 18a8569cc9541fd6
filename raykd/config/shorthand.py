"""Sources written as one string, for speech and text alike."""

import os
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from raykd.config.base import Mark


def source_shorthand(kind_of: Callable[[str], str]) -> BeforeValidator:
    """Reads `demo`, `hf:NAME` or a path as a source. A source without a `kind` gets the one that its `path` alone would have.

    `kind_of` tells the kind of a path from its name; it is `auto` where only what lies there tells (`data.sources.recognise`).
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
        return {"kind": kind_of(value), "path": value}

    return BeforeValidator(read)


def _glob_is_whole(path: str) -> str:
    """Of a path on this machine; others are judged where their files are listed (`data.files`)."""
    parts = path.split("/") if "://" not in path else []
    for number, part in enumerate(parts, start=1):
        for brackets in re.findall(r"\[[^\]]+\]", part):
            try:
                re.compile(brackets)
            except re.error as error:
                if os.path.exists("/".join(parts[:number])):  # they are letters of its name
                    continue
                raise ValueError(f"{brackets} is no set of characters of a pattern ({error.msg}); correct the path") from None
    return path


SourcePath = Annotated[str, Mark.PATH, AfterValidator(_glob_is_whole)]
"""A file, a folder or a glob."""


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


ONE_OR_MORE = BeforeValidator(_one_or_more)
"""A single value stands for a list of it."""
