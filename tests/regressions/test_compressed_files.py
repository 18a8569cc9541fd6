"""Storage once unpacked files named .gz while it read them, because pyarrow guesses from the name."""

import gzip
from pathlib import Path

from raykd import storage


def test_a_compressed_file_is_read_and_written_as_it_is(tmp_path: Path) -> None:
    packed = gzip.compress(b"slovo\n")
    for path in (str(tmp_path / "words.txt.gz"), f"file://{tmp_path}/again.txt.gz"):
        storage.write_bytes(path, packed)
        assert storage.read_bytes(path) == packed
