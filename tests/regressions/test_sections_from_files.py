"""A part from a file whose section has a section from the same file could not be read where the file is not."""

import pickle
import sys
from pathlib import Path

from raykd.parts import outside
from raykd.parts.outside import load_parts_file
from raykd.parts.terms.term import TERMS_ROOM

TEXT = """
from enum import Enum
from typing import Literal

from raykd.config.base import Section
from raykd.parts.terms.term import TokenTerm


class Side(Enum):
    BOTH = "both"


class Band(Section):
    low: float = 0.5
    side: Side = Side.BOTH


class Banded(TokenTerm):
    kind: Literal["banded"] = "banded"
    band: Band = Band()

    def values(self, at):
        return at.student(1.0)
"""


def test_a_section_within_a_part_travels_with_it(tmp_path: Path) -> None:
    path = tmp_path / "banded.py"
    path.write_text(TEXT)
    file = load_parts_file(str(path))
    try:
        sent = pickle.dumps(TERMS_ROOM.read({"kind": "banded", "band": {"low": 0.25}}))
        del sys.modules[file.module_name], outside._read[file.module_name]  # as in another process
        path.unlink()
        assert repr(pickle.loads(sent)).endswith("band=Band(low=0.25, side=<Side.BOTH: 'both'>))")
    finally:
        del TERMS_ROOM.parts["banded"], sys.modules[file.module_name], outside._read[file.module_name]
