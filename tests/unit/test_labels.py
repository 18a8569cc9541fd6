"""A teacher's labels: which are dropped, what their source gives, and how their timestamps are read."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from raykd.config.data import LabelFilter, LabelsSource
from raykd.data.corpus import REJECTS_FILE, write_parquet
from raykd.data.labels import LABELS_FILE, LABELS_SCHEMA, labelled_parts, open_labels, why_dropped
from raykd.data.rejects import FILTERED, check_rejects
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.labelling.recordings import _each_id_once
from raykd.labelling.summary import summary, tables
from raykd.labelling.transcripts import compression_ratio, segments_of
from tests.corpora import row

SURE = {"text": "ahoj", "avg_log_prob": -0.2, "compression_ratio": 1.1, "no_speech_prob": 0.0, "wer": None}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, None),
        ({"text": ""}, "the teacher heard no words"),
        ({"wer": 0.1}, None),
        ({"wer": 0.11}, "WER over 0.1"),
        ({"wer": 0.0, "avg_log_prob": -3.0, "compression_ratio": 9.0}, None),
        ({"avg_log_prob": -1.01}, "unsure (mean log-probability under -1)"),
        ({"avg_log_prob": -1.01, "no_speech_prob": 0.7}, "no speech"),
        ({"no_speech_prob": 0.99}, None),
        ({"compression_ratio": 2.5}, "repeats itself (compression ratio over 2.4)"),
    ],
)
def test_why_a_label_is_dropped(values: dict[str, Any], reason: str | None) -> None:
    assert why_dropped({**SURE, **values}, LabelFilter()) == reason


def test_every_limit_can_be_taken_away() -> None:
    none = LabelFilter(max_wer=None, min_avg_log_prob=None, max_compression_ratio=None, max_no_speech_prob=None)
    assert why_dropped({**SURE, "wer": 5.0}, none) is None
    assert why_dropped({**SURE, "avg_log_prob": -9.0, "compression_ratio": 99.0, "no_speech_prob": 1.0}, none) is None


@dataclass(frozen=True)
class Rows:
    """A part that is there already."""

    given: tuple[dict[str, Any], ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        yield from (dict(one) for one in self.given)


def label(number: int, **values: Any) -> dict[str, Any]:
    usual = {**SURE, "id": f"utterance-{number:04d}", "language": "cs", "split": "train", "duration_s": 1.0}
    return dict.fromkeys(LABELS_SCHEMA.names) | usual | values


def stored(folder: Path, rows: list[dict[str, Any]], rejects: list[dict[str, Any]] | None = None) -> Path:
    write_parquet(
        pa.Table.from_pylist(sorted(rows, key=lambda one: one["id"]), LABELS_SCHEMA), str(folder / "labels-00000.parquet")
    )
    schema = pa.schema([(name, pa.string()) for name in ("id", "reason", "detail", "path")])
    write_parquet(pa.Table.from_pylist(rejects or [], schema), str(folder / REJECTS_FILE))
    sizes = {name: (folder / name).stat().st_size for name in ("labels-00000.parquet", REJECTS_FILE)}
    made = {"data": {"source": [{"kind": "manifest", "path": "x.jsonl"}]}, "files": sizes, "digest": "d", "labelled": len(rows)}
    (folder / LABELS_FILE).write_text(json.dumps(made))
    return folder


def given(folder: Path, rows: list[dict[str, Any]], prefix: str = "", **source: Any) -> list[dict[str, Any]]:
    labels = open_labels(str(folder))
    assert labels is not None
    (part,) = labelled_parts(LabelsSource(path=str(folder), **source), labels, [Rows(tuple(rows))], prefix)
    return list(part.rows())


def test_train_has_the_teachers_text_and_what_is_scored_on_keeps_its_own(tmp_path: Path) -> None:
    labels = [
        label(0, wer=0.0),
        label(1, split="dev", text=None),
        label(2, wer=0.5),
        label(3, split="test"),
        label(4, split="dev", text="nahrávka"),
    ]
    rows = [row(number, text="zlato") for number in range(4)] + [row(4, text=None), row(5), row(6), row(7, problem="no audio")]
    folder = stored(tmp_path, labels, [{"id": "utterance-0006", "reason": "silent audio"}])
    found = given(folder, rows, prefix="2:")
    assert [(one["id"], one["text"], one["split"], one["problem"]) for one in found] == [
        ("2:utterance-0000", "ahoj", "train", None),
        ("2:utterance-0001", "zlato", "dev", None),
        ("2:utterance-0002", "zlato", "train", f"{FILTERED}WER over 0.1"),
        ("2:utterance-0003", "zlato", "test", None),
        ("2:utterance-0004", "nahrávka", "dev", None),
        ("2:utterance-0005", rows[5]["text"], "train", "new since the labels were made"),
        ("2:utterance-0006", rows[6]["text"], "train", "silent audio"),
        ("2:utterance-0007", rows[7]["text"], "train", "no audio"),
    ]
    assert [one["text"] for one in given(folder, rows[:1], text="gold")] == ["zlato"]
    assert [one["problem"] for one in given(folder, rows[:3], filter={"max_wer": 0.6})] == [None, None, None]


def test_what_is_filtered_is_no_fault_of_the_data() -> None:
    check_rejects({f"{FILTERED}WER over 0.1": 60, "silent audio": 2}, 100, 0.05, "rejects.parquet")
    with pytest.raises(UserError, match="10 of 100 rows cannot be used"):
        check_rejects({f"{FILTERED}WER over 0.1": 60, "silent audio": 10}, 100, 0.05, "rejects.parquet")
    with pytest.raises(UserError, match="100 of 100 rows cannot be used, that is all of them"):
        check_rejects({f"{FILTERED}WER over 0.1": 100}, 100, 0.05, "rejects.parquet")


@pytest.mark.parametrize("harm", ["cut", "gone", "no json"])
def test_damaged_labels_are_named(tmp_path: Path, harm: str) -> None:
    folder = stored(tmp_path, [label(0)])
    if harm == "no json":
        (folder / LABELS_FILE).write_text("{")
    elif harm == "gone":
        (folder / "labels-00000.parquet").unlink()
    else:
        (folder / "labels-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="label again"):
        open_labels(str(folder))


def test_a_part_with_other_labels_is_another_part(tmp_path: Path) -> None:
    """The key of a corpus is made of the parts' text."""
    source = LabelsSource(path=str(tmp_path))
    texts = set()
    for number, text in enumerate(("ahoj", "nazdar")):
        (tmp_path / str(number)).mkdir()
        labels = open_labels(str(stored(tmp_path / str(number), [label(0, text=text)])))
        assert labels is not None
        texts.add(repr(labelled_parts(source, labels, [Rows(())], "")))
    assert len(texts) == 2


def test_summary_counts_by_language() -> None:
    rows = [
        label(0, wer=0.0, words=4, word_errors=0),
        label(1, wer=0.25, words=4, word_errors=1),
        label(2, wer=1.0, words=2, word_errors=2, language="pl"),
        label(3, language="pl", avg_log_prob=-2.0),
        label(4, text=None),
    ]
    found = summary(rows, LabelFilter())
    assert list(found["languages"]) == ["cs", "pl", "all"]
    cs, pl, everything = found["languages"].values()
    assert (cs["utterances"], cs["kept"], cs["wer"]) == (2, 1, 1 / 8)
    assert (pl["utterances"], pl["kept"], pl["wer"]) == (2, 0, 1.0)
    assert everything["wer"] == 3 / 10
    assert everything["dropped"] == {"0.05": 2 / 3, "0.1": 2 / 3, "0.2": 2 / 3}
    assert found["reasons"] == {"WER over 0.1": 2, "unsure (mean log-probability under -1)": 1}
    assert found["worst"] == ["utterance-0002", "utterance-0001"]


def test_the_table_of_much_speech_fits_80_columns() -> None:
    many = [label(0, wer=1.0, words=4, word_errors=4, duration_s=3600.0 * 12345)] * 2
    found = summary(many, LabelFilter(max_wer=None))
    found["languages"]["cs"] |= {"utterances": 1234567, "kept": 1234567}
    said = io.StringIO()
    Console(file=said, width=80).print(next(iter(tables(found, [], "auto"))))
    assert re.search(r"cs +1234567 +24690.00 +1234567 +24690.00 +100.00% +100% +100% +100%", said.getvalue())


def test_timestamps_are_cut_into_segments(tiny_whisper_dir: Path) -> None:
    encoder = LabelEncoder(str(tiny_whisper_dir))
    at = encoder.timestamp_id
    word = encoder.encode("Ahoj", "cs")[4:-1]
    ids = [at, *word, at + 50, at + 75, *word, *word, at + 120, at + 120, *word]
    assert segments_of(ids, encoder) == [
        {"start_s": 0.0, "end_s": 1.0, "text": "Ahoj"},
        {"start_s": 1.5, "end_s": 2.4, "text": "Ahoj Ahoj"},
        {"start_s": 2.4, "end_s": None, "text": "Ahoj"},
    ]


def test_repetition_compresses_well() -> None:
    assert compression_ratio("") == 0
    assert compression_ratio("a tak dál " * 40) > 2.4 > compression_ratio("Každý pes jiná ves, a přece tu nikdo neštěká.")


def test_recordings_that_share_an_id_are_told() -> None:
    rows = [{"id": "a", "path": "1"}, {"id": "b", "path": "2"}, {"id": "a", "path": "3"}]
    assert _each_id_once(rows) == (rows[:2], 1)
