"""Parts of one's own in tests: the README's method, and rooms that forget what a test has read."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raykd.parts import outside
from raykd.parts.rooms import ROOMS

ROOT = Path(__file__).parents[1]


@contextmanager
def forgotten() -> Iterator[None]:
    """Parts that are read inside are unknown afterwards."""
    before = [dict(room.parts) for room in ROOMS]
    read = set(outside._read)
    try:
        yield
    finally:
        for room, parts in zip(ROOMS, before, strict=True):
            room.parts = parts
        for name in outside._read.keys() - read:
            del outside._read[name], sys.modules[name]


def readme_method(folder: Path) -> Path:
    """The method in the README, in the file that the README's command names."""
    (text,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    path = folder / "my_method.py"
    path.write_text(text, "utf-8")
    return path
