"""The text section: shorthands for sources, sizes as people write them, mistakes in one line."""

from pathlib import Path

import pytest

from raykd.config.load import parse
from raykd.config.text import TextConfig
from raykd.data.sources.recognise import with_text_kinds
from raykd.errors import UserError


def text_config(**values: object) -> TextConfig:
    return parse(TextConfig, {"source": "demo", "language": "cs", **values}, "text.yaml")


@pytest.mark.parametrize(
    ("written", "expected"),
    [(None, None), (1000, 1000), ("210MB", 210_000_000), ("1.5GB", 1_500_000_000), ("3 kB", 3000), ("12", 12), ("2g", None)],
)
def test_bytes_are_written_as_people_do(written: object, expected: int | None) -> None:
    if written == "2g":
        with pytest.raises(UserError, match=r"text\.yaml: max_bytes: must be a number of bytes such as 210MB.*got 2g"):
            text_config(max_bytes=written)
    else:
        assert text_config(max_bytes=written).max_bytes == expected


def test_sources_have_shorthands(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.txt.xz").touch()
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.parquet").touch()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").touch()
    written = [
        *("demo", "hf:statmt/cc100", "a.txt", "s3://bucket/a.txt.gz", "text/*.parquet", "missing"),
        *(str(tmp_path / name) for name in ("plain", "tables", "saved")),
        {"path": "hf:statmt/cc100", "name": "cs"},
    ]
    config = text_config(source=written)
    kinds = ["demo", "huggingface", "files", "files", "parquet", *["auto"] * 4, "huggingface"]
    assert [source.kind for source in config.source] == kinds
    kinds[5:9] = ["files", "files", "parquet", "huggingface"]
    assert [source.kind for source in with_text_kinds(config).source] == kinds
    last = config.source[-1]
    assert (last.path, last.name) == ("statmt/cc100", "cs")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": []}, "source: must be at least 1 long"),
        ({"source": {"kind": "demo", "sentences": 0}}, "source.sentences: must be at least 1"),
        ({"segment_words": 15}, "segment_words: unknown key; did you mean"),
        ({"validation_share": 0.5}, "validation_share: must be less than 0.5"),
        ({"max_bytes": 0}, "max_bytes: must be at least 1"),
        ({"language": None}, "language: must be text"),
    ],
)
def test_mistakes_name_their_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as raised:
        text_config(**values)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
