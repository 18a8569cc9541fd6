"""All kinds of text sources give the same lines, as streams; damaged files are named."""

import gzip
import io
import lzma
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raykd.config.text import TextConfig
from raykd.data.demo.grammar import KINDS
from raykd.data.demo.languages import GRAMMARS
from raykd.data.text_sources import text_parts
from raykd.data.text_sources.files import bounded_lines
from raykd.data.text_sources.part import MAX_LINE_BYTES, TextPart
from raykd.errors import UserError

LINES = ["Žluťoučký kůň", "", "úpěl ďábelské ódy.", "konec"]
TEXT = "\n".join(LINES) + "\n"


def parts(source: object, language: str = "cs") -> list[TextPart]:
    return text_parts(TextConfig.model_validate({"source": source, "language": language}), language)


def lines(source: object) -> list[str]:
    raw = [content for part in parts(source) for _, content in part.lines()]
    return [content.decode() if isinstance(content, bytes) else str(content) for content in raw]


def test_plain_and_packed_files_have_the_same_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "c.txt.xz").write_bytes(lzma.compress(TEXT.encode()))
    (tmp_path / "d.md").write_text("not text")
    for name in ("a.txt", "b.txt.gz", "c.txt.xz"):
        assert lines(str(tmp_path / name)) == LINES
    assert lines(str(tmp_path)) == 3 * LINES
    assert lines(str(tmp_path / "*.xz")) == LINES
    assert [part.name for part in parts(str(tmp_path))] == [str(tmp_path / n) for n in ("a.txt", "b.txt.gz", "c.txt.xz")]


def test_files_of_several_members_are_read_to_their_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode()) + gzip.compress(TEXT.encode()))
    assert lines(str(tmp_path / "a.txt.gz")) == 2 * LINES


def test_tables_give_each_line_of_their_values(tmp_path: Path) -> None:
    from datasets import Dataset

    table = pa.table({"text": ["Žluťoučký kůň\n\núpěl ďábelské ódy.", "konec", None], "other": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert lines(str(tmp_path / "a.parquet")) == [*LINES, ""]
    (part,) = parts(str(tmp_path / "a.parquet"))
    assert [number for number, _ in part.lines()] == [1, 1, 1, 2, 3]
    Dataset(table).save_to_disk(str(tmp_path / "saved"))
    assert lines(str(tmp_path / "saved")) == [*LINES, ""]
    assert lines({"kind": "huggingface", "path": str(tmp_path)}) == [*LINES, ""]


def test_keys_change_with_the_content(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(TEXT)
    before = repr(parts(str(file)))
    assert repr(parts(str(file))) == before
    file.write_text(TEXT + "more")
    assert repr(parts(str(file))) != before
    assert repr(parts("demo")) == repr(parts("demo"))
    assert len({repr(parts(source)) for source in ("demo", {"kind": "demo", "seed": 1})}) == 2
    assert repr(parts("demo", "pl")) != repr(parts("demo"))


def test_demo_text_is_distinct_sentences_of_all_kinds() -> None:
    source = {"kind": "demo", "sentences": 400}
    text = lines(source)
    assert lines(source) == text
    assert lines({**source, "seed": 1}) != text
    assert len(set(text)) == len(text) == 400
    grammar = GRAMMARS["cs"]
    everything = {grammar.sentence(kind, number): kind for kind in KINDS for number in range(grammar.size(kind))}
    assert {everything[str(sentence)] for sentence in text} == set(KINDS)


def test_demo_text_ends_with_its_grammar() -> None:
    grammar = GRAMMARS["cs"]
    (part,) = parts({"kind": "demo", "kinds": ["name"], "sentences": 10**9})
    words = {word for _, line in part.lines() for word in str(line).split()}
    assert words == set(grammar.word_shares("name"))
    assert len(list(part.lines())) == grammar.size("name")


def random_lines(seed: int) -> list[bytes]:
    draws = random.Random(seed)
    lengths = [draws.choice([0, 1, 50, 100_000, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES]) for _ in range(12)]
    return [bytes([97 + draws.randrange(26)]) * length for length in lengths]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_are_bounded(seed: int, end: bytes) -> None:
    whole = [*random_lines(seed), b"last"]
    found = list(bounded_lines(io.BytesIO(b"\n".join(whole) + end)))
    assert found == [line if len(line) <= MAX_LINE_BYTES else None for line in whole]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz"])
@pytest.mark.parametrize("damage", ["cut", "changed", "not packed"])
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    text = "\n".join(str(random.Random(number).random()) for number in range(20_000)).encode()
    packed = bytearray(gzip.compress(text) if name.endswith("gz") else lzma.compress(text))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    elif damage == "changed":
        packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    file = tmp_path / name
    file.write_bytes(text if damage == "not packed" else packed)
    with pytest.raises(UserError, match=rf"{name}: cannot be unpacked to its end \(.+\); get the file again$"):
        lines(str(file))


def test_sources_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    pq.write_table(pa.table({"words": ["a"], "n": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("not parquet")
    (tmp_path / "folder").mkdir()
    for source, message in (
        (str(tmp_path / "gone.txt"), r"^text\.source: .*gone\.txt does not exist; correct the path$"),
        (str(tmp_path / "folder"), r"^text\.source: no text file in .*folder; expected \.txt, \.txt\.gz, \.txt\.xz$"),
        (str(tmp_path / "empty.txt"), r"empty\.txt: is empty; remove it or get it again$"),
        (str(tmp_path / "a.parquet"), r"a\.parquet: no text column `text`; set text\.source\.column .*found: words\)$"),
        ({"path": str(tmp_path / "a.parquet"), "column": "n"}, r"no text column `n`"),
        (str(tmp_path / "b.parquet"), r"b\.parquet: not a Parquet file"),
        ("hf:/no/such/folder", r"^text\.source: /no/such/folder does not exist"),
        ({"kind": "demo", "kinds": ["song"]}, r"^text\.source\.kinds: demo text has no song; choose from number, .*question"),
    ):
        with pytest.raises(UserError, match=message):
            parts(source)
    with pytest.raises(UserError, match=r"^text\.language: demo text has no de; choose from ca, cs"):
        parts("demo", "de")
