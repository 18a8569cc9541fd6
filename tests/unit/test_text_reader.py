"""Lines become segments as in the published preparation; what is no text is rejected and counted, in bounded memory."""

import gzip
import json
import tracemalloc
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raykd.config.text import TextConfig
from raykd.data.rejects import RejectedError
from raykd.data.text_reader import SegmentReader, clean_line, cut, has_words
from raykd.data.text_sources import text_parts
from raykd.errors import UserError


def read(folder: Path, content: str | bytes, **values: object) -> tuple[list[str], dict]:
    """Segments and counts of a text file."""
    file = folder / "a.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = TextConfig.model_validate({"source": str(file), "language": "cs", **values})
    reader = SegmentReader(text_parts(config, "cs"), config, str(folder))
    segments = [text for table in reader.tables() for texts in table.column("texts").to_pylist() for text in texts]
    return segments, json.loads((folder / "lines.json").read_text())


def test_lines_are_joined_and_cut(tmp_path: Path) -> None:
    lines = [" ".join(f"w{line}x{word}" for word in range(7)) for line in range(5)]
    segments, counts = read(tmp_path, "\n".join(lines))
    words = " ".join(lines).split()
    assert segments == [" ".join(words[:15]), " ".join(words[15:30]), " ".join(words[30:])]
    assert {name: counts[name] for name in ("read", "kept", "duplicate", "short", "bytes", "words")} == {
        "read": 5,
        "kept": 5,
        "duplicate": 0,
        "short": 0,
        "bytes": sum(map(len, lines)),
        "words": 35,
    }


def test_without_a_size_each_line_is_a_segment(tmp_path: Path) -> None:
    segments, counts = read(tmp_path, "a b c\nd\ne f g h i j", words_per_segment=None, min_words=2)
    assert segments == ["a b c", "e f g h i j"]
    assert (counts["kept"], counts["short"]) == (2, 1)


def test_last_words_are_dropped_when_they_are_few(tmp_path: Path) -> None:
    segments, _ = read(tmp_path, "a b c d e f g h i", words_per_segment=5, min_words=5)
    assert segments == ["a b c d e"]
    segments, _ = read(tmp_path, "a b c d e f g h i", words_per_segment=5, min_words=4)
    assert segments == ["a b c d e", "f g h i"]


def test_short_and_repeated_lines_are_dropped_and_counted(tmp_path: Path) -> None:
    lines = ["jedna dvě tři čtyři pět", "jen čtyři slova zde", "1 2 3 - čtyři pět", "", "  jedna dvě  tři čtyři pět "]
    segments, counts = read(tmp_path, "\n".join(lines))
    assert segments == ["jedna dvě tři čtyři pět"]
    assert (counts["read"], counts["kept"], counts["short"], counts["duplicate"]) == (5, 1, 3, 1)
    segments, counts = read(tmp_path, "\n".join(lines), deduplicate=False)
    assert segments == ["jedna dvě tři čtyři pět jedna dvě tři čtyři pět"]
    assert counts["duplicate"] == 0


def test_verse_numbers_are_stripped_and_segments_cut(tmp_path: Path) -> None:
    segments, _ = read(tmp_path, "12Na počátku 3 Bůh 1stvořil 20, nebe a2 zemi.")
    assert segments == ["Na počátku 3 Bůh stvořil 20, nebe a2 zemi."]
    segments, counts = read(tmp_path, "abc abc abc abc abc", max_characters=8)
    assert segments == ["abc abc"]
    assert counts["words"] == 1


def test_reading_stops_at_the_byte_budget(tmp_path: Path) -> None:
    lines = [f"řádka číslo {number:03d} má pět slov" for number in range(100)]
    size = len(lines[0].encode())
    _, counts = read(tmp_path, "\n".join(lines), max_bytes=10 * size)
    assert (counts["kept"], counts["read"], counts["bytes"]) == (10, 10, 10 * size)
    _, counts = read(tmp_path, "\n".join(lines), max_bytes=10 * size + 1)
    assert counts["kept"] == 11


def test_words_are_listed_as_they_are_written(tmp_path: Path) -> None:
    read(tmp_path, "Kůň a 2kůň, kůň a\nslon příliš mnoho slov v\nkrátká řádka\n")
    words = gzip.decompress((tmp_path / "words.txt.gz").read_bytes()).decode().splitlines()
    assert words == sorted(words)
    assert set(words) == {"Kůň", "a", "kůň,", "kůň", "slon", "příliš", "mnoho", "slov", "v"}


def test_text_is_normalised() -> None:
    assert (
        clean_line("\N{ZERO WIDTH NO-BREAK SPACE} ku\N{COMBINING RING ABOVE}n\N{COMBINING CARON}\t a\r\n".encode()) == "kůň a"
    )
    assert unicodedata.is_normalized("NFC", clean_line("kůň"))
    assert clean_line(b" \t\r") == ""
    assert clean_line("Příliš, ŽLUŤOUČKÝ!") == "Příliš, ŽLUŤOUČKÝ!"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"caf\xe9 latin-1", "not UTF-8 text"),
        ("half \ud83d", "not UTF-8 text"),
        (b"a\0b", "NUL characters"),
        (b"\x01\x02 \x7f", "control characters only"),
        (None, "line over 1 MiB"),
    ],
)
def test_what_is_no_text_is_rejected(raw: bytes | str | None, reason: str) -> None:
    with pytest.raises(RejectedError) as raised:
        clean_line(raw)
    assert raised.value.reason == reason


def test_rejected_lines_are_listed_with_their_place(tmp_path: Path) -> None:
    good = "pět slov je tady dobře"
    segments, counts = read(tmp_path, b"\n".join([good.encode(), b"\xff", b"a\0", b"x" * (3 << 20), b"\0"]))
    assert segments == [good]
    assert counts["rejects"] == {"not UTF-8 text": 1, "NUL characters": 2, "line over 1 MiB": 1}
    rows = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    assert [row["id"] for row in rows] == [f"{tmp_path}/a.txt:{line}" for line in (2, 3, 4, 5)]
    assert [row["reason"] for row in rows] == ["not UTF-8 text", "NUL characters", "line over 1 MiB", "NUL characters"]


@pytest.mark.slow
def test_a_file_of_one_endless_line_takes_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.txt.xz"
    import lzma

    with lzma.open(file, "wb", preset=0) as stream:
        for _ in range(64):
            stream.write(b"slovo " * (1 << 18))
    config = TextConfig(source=str(file), language="cs")
    tracemalloc.start()
    try:
        list(SegmentReader(text_parts(config, "cs"), config, str(tmp_path)).tables())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert json.loads((tmp_path / "lines.json").read_text())["rejects"] == {"line over 1 MiB": 1}


def test_a_packed_file_without_lines_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b""))
    config = TextConfig(source=str(tmp_path / "a.txt.gz"), language="cs")
    with pytest.raises(UserError, match=r"a\.txt\.gz: has no line"):
        list(SegmentReader(text_parts(config, "cs"), config, str(tmp_path)).tables())


def test_words_that_hold_a_letter_are_counted() -> None:
    assert has_words(["a", "1", "b2"], 2)
    assert not has_words(["a", "1", "_", "—"], 2)


def test_a_long_line_is_cut_at_once() -> None:
    segments = list(cut([["a"] * 7, ["b"] * 40], 10, 1))
    assert [len(segment) for segment in segments] == [10, 10, 10, 10, 7]
    assert segments[0] == ["a"] * 7 + ["b"] * 3
