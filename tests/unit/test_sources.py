"""Every kind of source, in its genuine layout, read without Ray."""

import csv
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from raykd.config.data import DataConfig
from raykd.data import times
from raykd.data.audio import decode_audio, read_samples
from raykd.data.sources import all_parts
from raykd.data.sources.part import PART_ROWS
from raykd.data.utterances import SCHEMA, tables
from raykd.errors import UserError

Row = dict[str, Any]


def clip(hz: float, kind: str = "WAV", rate: int = 16_000) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, 0.5 * np.sin(2 * np.pi * hz * np.arange(rate // 5) / rate), rate, format=kind)
    return stream.getvalue()


def read(*sources: str | Mapping[str, Any], language: str | None = None) -> list[Row]:
    config = DataConfig.model_validate({"source": list(sources), "language": language})
    rows: list[Row] = []
    for part in all_parts(config):
        for table in tables(part.rows()):
            assert table.schema == SCHEMA
            rows += table.to_pylist()
    return rows


def by_id(rows: Sequence[Row]) -> dict[str, Row]:
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def audible(row: Row) -> bool:
    return len(read_samples(row)) > 0


def mistake(source: str | Mapping[str, Any], language: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(source, language=language)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_jsonl(path: Path, rows: Sequence[Any]) -> str:
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )
    return str(path)


# --- manifests ---


def test_jsonl_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.flac").write_bytes(clip(300, "FLAC"))
    row = {"audio": "clips/a.flac", "text": " dobrý den ", "language": "cs-CZ", "duration": 0.2, "split": "validation"}
    (got,) = read(write_jsonl(tmp_path / "m.jsonl", [row]))
    assert got == {
        "id": "clips/a.flac",
        "audio": None,
        "path": str(tmp_path / "clips/a.flac"),
        "text": "dobrý den",
        "language": "cs",
        "duration_s": 0.2,
        "split": "dev",
        "recording": "clips",
        "start_s": None,
        "channel": None,
        "problem": None,
    }
    assert audible(got)


def test_ids_are_the_same_wherever_the_data_lie(tmp_path: Path) -> None:
    ids = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"audio": "./a.wav", "text": "a"}, {"audio": str(folder / "sub/b.wav"), "text": "b"}]
        ids.append([row["id"] for row in read(write_jsonl(folder / "m.jsonl", rows), language="en")])
    assert ids[0] == ids[1] == ["a.wav", "sub/b.wav"]


def test_an_id_column_wins_and_several_sources_do_not_clash(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", [{"id": 7, "audio": "a.wav", "text": "a"}])
    second = write_jsonl(tmp_path / "b.jsonl", [{"utt_id": "7", "audio": "a.wav", "text": "a"}])
    assert [row["id"] for row in read(first, second, language="en")] == ["7", "2:7"]


@pytest.mark.parametrize(
    ("audio", "text", "language", "duration"),
    [
        ("audio_filepath", "text", "lang", "duration"),
        ("path", "sentence", "locale", "duration_s"),
        ("file", "transcription", "language", "duration"),
        ("wav", "transcript", "language", "duration"),
    ],
)
def test_columns_have_the_names_people_give_them(tmp_path: Path, audio: str, text: str, language: str, duration: str) -> None:
    (row,) = read(write_jsonl(tmp_path / "m.jsonl", [{audio: "a.wav", text: "t", language: "Czech", duration: "1.5"}]))
    assert (row["path"], row["text"], row["language"], row["duration_s"]) == (str(tmp_path / "a.wav"), "t", "cs", 1.5)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"offset": 2, "duration": 1.5}, ("l.wav:2.00-3.50", 2.0, 1.5, None)),
        ({"offset": "0.5", "duration": "1"}, ("l.wav:0.50-1.50", 0.5, 1.0, None)),
        ({"start": 2.0, "end": 3.0}, ("l.wav:2.00-3.00", 2.0, 1.0, None)),
        ({"start": 0, "end": 1, "duration": 9}, ("l.wav:0.00-1.00", 0.0, 1.0, None)),
        ({"offset": 0, "duration": 4.0}, ("l.wav:0.00-4.00", 0.0, 4.0, None)),
        ({"offset": 0}, ("l.wav", None, None, None)),
        ({"duration": 4.0}, ("l.wav", None, 4.0, None)),
        ({"start": 2}, ("l.wav", None, None, "part of a longer recording without its end")),
        ({"start": 2.0, "end": 3.0, "offset": 7}, ("l.wav:2.00-3.00", 2.0, 1.0, None)),
        ({"start": 2, "offset": 2, "duration": 1}, ("l.wav:2.00-3.00", 2.0, 1.0, None)),
        ({"onset": 2.0, "offset": 3.0, "duration": 1.0}, ("l.wav:2.00-3.00", 2.0, 1.0, None)),
        ({"onset": 2.0, "duration": 1.0}, ("l.wav:2.00-3.00", 2.0, 1.0, None)),
        ({"start": "00:00:02.000", "end": "0:03"}, ("l.wav:2.00-3.00", 2.0, 1.0, None)),
        ({"start": "2,0", "end": "3,0 s"}, ("l.wav:2.00-3.00", 2.0, 1.0, None)),
        ({"Start": "2000 ms", "END": 3}, ("l.wav:2.00-3.00", 2.0, 1.0, None)),
        ({"start": -0.02, "end": 1.0}, ("l.wav:0.00-1.00", 0.0, 1.0, None)),
        ({"start": "", "end": float("nan")}, ("l.wav", None, None, None)),
        ({"duration": -1}, ("l.wav", None, None, None)),
        ({"start": -2, "end": 1.0}, ("l.wav", None, None, "start is no time")),
        ({"start": "soon", "end": 1.0}, ("l.wav", None, None, "start is no time")),
        ({"start": 1.0, "end": [2.0]}, ("l.wav", None, None, "end is no time")),
        ({"end": 2.0}, ("l.wav", None, None, "part of a longer recording without its start")),
        ({"start_ts": 1.0, "end_ts": 2.0}, ("l.wav", None, None, times.NO_UNIT)),
        ({"start": 1, "offset": 3, "duration": 1}, ("l.wav", None, None, times.TWO_STARTS)),
        ({"start": 3, "end": 2}, ("l.wav", None, None, "part of a longer recording that ends before it begins")),
    ],
)
def test_parts_of_recordings(tmp_path: Path, part: dict[str, Any], expected: tuple[Any, ...]) -> None:
    (row,) = read(write_jsonl(tmp_path / "m.jsonl", [{"audio": "l.wav", "text": "a", "language": "en", **part}]))
    assert (row["id"], row["start_s"], row["duration_s"], row["problem"]) == expected


def test_what_belongs_together_is_a_recording_or_a_speaker_or_a_folder(tmp_path: Path) -> None:
    good = {"text": "a", "language": "en"}
    rows = read(
        write_jsonl(
            tmp_path / "m.jsonl",
            [
                good | {"audio": "a.wav"},
                good | {"audio": "7/a.wav"},
                good | {"audio": "7/a.wav", "start": 1, "end": 2},
                good | {"audio": "7/a.wav", "speaker": 12},
                good | {"audio": "7/a.wav", "speaker": 12, "recording_id": "r1"},
            ],
        )
    )
    assert [row["recording"] for row in rows] == [".", "7", "7/a.wav", "12", "r1"]


def test_bad_rows_keep_their_place_with_a_reason(tmp_path: Path) -> None:
    good = {"audio": "a.wav", "text": "a", "language": "en"}
    lines = [
        good,
        '{"audio": "b.wav", "text"\n',
        "\n",
        '["a", "list"]\n',
        good | {"audio": None, "id": "silent"},
        good | {"audio": "c.wav", "text": " "},
        good | {"audio": "d.wav", "language": "klingon"},
        good | {"audio": "e.wav", "language": None},
        good | {"audio": "f.wav", "offset": 3.5},
        '{"audio": "g.wav", "text": "half a \\ud83d character", "language": "en"}\n',
        good | {"audio": "h.wav", "text": "UTF-16".encode("utf-16-le").decode()},
        good | {"audio": "z.wav", "offset": 0, "text": 5},
    ]
    rows = read(write_jsonl(tmp_path / "m.jsonl", lines))
    assert [(row["id"], row["problem"]) for row in rows] == [
        ("a.wav", None),
        ("m.jsonl:2", "not valid JSON"),
        ("m.jsonl:4", "not valid JSON"),
        ("silent", "no audio"),
        ("c.wav", "no transcript"),
        ("d.wav", "unknown language klingon"),
        ("e.wav", "no language"),
        ("f.wav", "part of a longer recording without its end"),
        ("g.wav", "not UTF-8 text"),
        ("h.wav", "not UTF-8 text"),
        ("z.wav", None),
    ]
    assert rows[-1]["text"] == "5"


def test_language_falls_back_to_the_config(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "m.jsonl", [{"audio": "a", "text": "a"}, {"audio": "b", "text": "b", "language": "pl"}])
    assert [row["language"] for row in read(path, language="Czech")] == ["cs", "pl"]
    assert "data.language" in mistake(path, language="klingon")


def test_csv_of_every_habit(tmp_path: Path) -> None:
    text = 'say "hi",\nthen go; now'
    for number, delimiter in enumerate((",", ";", "\t")):
        with (tmp_path / f"{number}.csv").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows(
                [["audio", "text", "language"], ["a.wav", text if number < 2 else "x, y; z", "en"], ["b.wav", "b", "en"]]
            )
        rows = read(str(tmp_path / f"{number}.csv"))
        assert [row["id"] for row in rows] == ["a.wav", "b.wav"]
        assert rows[0]["text"] == (text if number < 2 else "x, y; z")


def test_bad_csv_rows_keep_their_place_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(
        b"path,sentence,locale\na.wav,a,en\nb.wav,b,en,surplus\nc.wav\nd.wav,caf\xe9,en\n\n,e,en\n"
    )
    rows = read(str(tmp_path / "m.csv"))
    assert [(row["id"], row["problem"]) for row in rows] == [
        ("a.wav", None),
        ("b.wav", "more fields than columns"),
        ("c.wav", "no transcript"),
        ("d.wav", "not UTF-8 text"),
        ("m.csv:7", "no audio"),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_long_manifest_is_cut_between_rows(tmp_path: Path, kind: str) -> None:
    n_rows = 2 * PART_ROWS + 3
    texts = [f"line {number}\nsecond, with ž" for number in range(n_rows)]
    path = tmp_path / f"m.{kind}"
    if kind == "jsonl":
        write_jsonl(path, [{"audio": f"{number}.wav", "text": text} for number, text in enumerate(texts)])
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["audio", "text"], *([f"{number}.wav", text] for number, text in enumerate(texts))])
    assert len(all_parts(DataConfig.model_validate({"source": str(path)}))) == 3
    rows = read(str(path), language="en")
    assert [row["id"] for row in rows] == [f"{number}.wav" for number in range(n_rows)]
    assert [row["text"] for row in rows] == texts


def test_parquet_holds_paths_bytes_or_both(tmp_path: Path) -> None:
    encoded = clip(300)
    (tmp_path / "a.wav").write_bytes(encoded)
    both = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "bytes": pa.array([encoded, encoded]),
        "paths": pa.array(["a.wav", "a.wav"]),
        "struct": pa.array([{"bytes": encoded, "path": "x.wav"}, {"bytes": None, "path": "a.wav"}], both),
    }
    ids = {}
    for name, audio in columns.items():
        pq.write_table(pa.table({"audio": audio, "text": ["a", "b"], "speaker": [1, 2]}), tmp_path / f"{name}.parquet")
        rows = read(str(tmp_path / f"{name}.parquet"), language="en")
        assert all(np.array_equal(read_samples(row), decode_audio(encoded)) for row in rows)
        assert [row["problem"] for row in rows] == [None, None]
        ids[name] = [row["id"] for row in rows]
    assert ids == {
        "bytes": ["bytes.parquet:0", "bytes.parquet:1"],
        "paths": ["a.wav", "a.wav"],
        "struct": ["struct.parquet:0", "a.wav"],
    }


NOT_UTF8 = pa.array([b"good", b"caf\xe9", None])


def texts_of(kind: pa.DataType, binary: pa.Array) -> pa.Array:
    return pa.Array.from_buffers(kind, len(binary), binary.buffers())


@pytest.mark.parametrize(
    "text",
    [
        texts_of(pa.string(), NOT_UTF8),
        texts_of(pa.large_string(), NOT_UTF8.cast(pa.large_binary())),
        pa.DictionaryArray.from_arrays(
            pa.array([0, 1, None], pa.int32()), texts_of(pa.string(), pa.array([b"good", b"caf\xe9"]))
        ),
    ],
    ids=["string", "large_string", "dictionary"],
)
@pytest.mark.parametrize("saved", [True, False])
def test_bytes_that_are_no_text_spoil_their_row_alone(tmp_path: Path, text: pa.Array, saved: bool) -> None:
    both = pa.StructArray.from_arrays(
        [pa.array([clip(300), None, clip(300)]), texts_of(pa.string(), NOT_UTF8)], ["bytes", "path"]
    )
    for name, table in {
        "text": pa.table({"audio": pa.array([clip(300)] * 3), "text": text}),
        "path": pa.table({"audio": both, "text": ["good", "one", "two"]}),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        if saved:
            (folder / "state.json").write_text('{"_split": "train"}')
            with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        else:
            pq.write_table(table, folder / "m.parquet")
        rows = read(str(folder), language="en")
        assert len(rows) == 3
        assert rows[0]["problem"] is None
        if name == "text":
            assert [row["problem"] for row in rows[1:]] == ["not UTF-8 text", "no transcript"]
            assert rows[1]["text"] == "caf\N{REPLACEMENT CHARACTER}"
        else:
            assert [row["text"] for row in rows] == ["good", "one", "two"]
            assert rows[1]["path"].endswith("caf\N{REPLACEMENT CHARACTER}"), "is a missing file"


def test_parquet_row_groups_are_sliced_and_keep_their_numbers(tmp_path: Path) -> None:
    n_rows = 3 * PART_ROWS + 5
    table = pa.table({"audio": [b"%d" % number for number in range(n_rows)], "text": ["t"] * n_rows})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=2 * PART_ROWS + 1)
    source = {"kind": "manifest", "path": str(tmp_path / "m.parquet")}
    assert len(all_parts(DataConfig.model_validate({"source": source}))) == 5
    rows = read(source, language="en")
    assert [row["audio"] for row in rows] == [b"%d" % number for number in range(n_rows)]
    assert [row["id"] for row in rows] == [f"m.parquet:{number}" for number in range(n_rows)]


def test_a_damaged_row_group_is_a_problem_of_each_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    table = pa.table({"audio": [bytes([number]) * 5_000 for number in range(4)], "text": ["t"] * 4, "language": ["en"] * 4})
    pq.write_table(table, path, row_group_size=2, use_dictionary=False, compression="none")
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    damaged = bytearray(path.read_bytes())
    damaged[chunk.data_page_offset : chunk.data_page_offset + 30] = b"\xff" * 30
    path.write_bytes(damaged)
    rows = read(str(path))
    assert [row["problem"] for row in rows] == [None, None, "unreadable row group", "unreadable row group"]
    assert [row["id"] for row in rows][2:] == ["m.parquet:2", "m.parquet:3"]


def test_a_folder_of_manifests_has_splits_by_file_name(tmp_path: Path) -> None:
    for name in ("train.jsonl", "val.jsonl", "test-00001-of-00002.jsonl", "extra.jsonl"):
        write_jsonl(tmp_path / name, [{"audio": f"{name}.wav", "text": "a", "language": "en"}])
    splits = {row["id"]: row["split"] for row in read(str(tmp_path))}
    assert splits == {
        "train.jsonl.wav": "train",
        "val.jsonl.wav": "dev",
        "test-00001-of-00002.jsonl.wav": "test",
        "extra.jsonl.wav": None,
    }
    assert [row["split"] for row in read(str(tmp_path / "t*.jsonl"))] == ["test", "train"]


def test_a_manifest_on_another_filesystem(tmp_path: Path) -> None:
    import fsspec

    encoded = clip(300)
    for name, content in {
        "m.jsonl": b'{"audio": "clips/a.wav", "text": "a", "language": "en"}\n',
        "clips/a.wav": encoded,
    }.items():
        with fsspec.open(f"memory://test-sources/corpus/{name}", "wb") as file:
            file.write(content)
    for shorthand in ("fsspec+memory://test-sources/corpus/m.jsonl", "fsspec+memory://test-sources/corpus"):
        (row,) = read(shorthand)
        assert row["id"] == "clips/a.wav"
        assert np.array_equal(read_samples(row), decode_audio(encoded))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", "not json\n", "not JSONL"),
        ("a.json", '[{"audio": "a.wav"}]', "one JSON object a line"),
        ("a.jsonl", '{"sound": "a.wav", "text": "a"}\n', "no audio column"),
        ("a.csv", "audio,words\na.wav,a\n", "no transcript column"),
        ("a.csv", "audio,text\n", "no rows"),
        ("a.csv", "", "no audio column"),
        ("a.parquet", "PAR1", "not a Parquet file"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    message = mistake(str(tmp_path / name), language="en")
    assert words in message
    assert str(tmp_path / name) in message


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    assert "does not exist" in mistake(str(tmp_path / "none.jsonl"))
    assert "does not exist" in mistake({"kind": "webdataset", "path": str(tmp_path / "none")})
    assert "no manifest in" in mistake({"kind": "manifest", "path": str(tmp_path)})
    assert "no manifest in" in mistake(str(tmp_path / "*.jsonl"))
    assert "cannot be opened as a filesystem" in mistake("nosuchscheme://bucket/m.jsonl")
    (tmp_path / "notes.txt").write_text("x")
    assert "is no manifest" in mistake({"kind": "manifest", "path": str(tmp_path / "notes.txt")})


def test_columns_and_splits_are_known_in_capitals_and_under_other_names(tmp_path: Path) -> None:
    """Case does not matter; a `subset` is a split where it names one."""
    told: list[tuple[dict[str, str], str | None]] = [
        ({"Split": "TEST"}, "test"),
        ({"subset": "dev-clean"}, "dev"),
        ({"partition": "train"}, "train"),
    ]
    told += [({"subset": "XL"}, None), ({"split": "prueba", "set": "train"}, "prueba"), ({"set": "train_dev"}, None)]
    rows = [{"Audio_Filepath": f"{n}.wav", "Text": "a", "Language": "cs", **more} for n, (more, _) in enumerate(told)]
    pq.write_table(
        pa.Table.from_pylist([{**dict.fromkeys(("Split", "subset")), **row} for row in rows[:2]]), tmp_path / "m.parquet"
    )
    for path, n_rows in ((write_jsonl(tmp_path / "m.jsonl", rows), len(rows)), (str(tmp_path / "m.parquet"), 2)):
        got = read(path, language="en")
        assert [(row["text"], row["language"], row["split"]) for row in got] == [
            ("a", "cs", split) for _, split in told[:n_rows]
        ]
    assert [row["problem"] for row in read(str(tmp_path / "m.jsonl"))] == [None] * 5 + ["unclear split"]


def test_a_column_that_the_config_names_is_the_only_one_for_its_role(tmp_path: Path) -> None:
    rows = [{"audio": "a.wav", "said": None, "text": "by a machine"}, {"audio": "b.wav", "said": "b", "text": "by a machine"}]
    source = {"path": write_jsonl(tmp_path / "m.jsonl", rows), "columns": {"text": "said"}}
    assert [(row["text"], row["problem"]) for row in read(source, language="en")] == [(None, "no transcript"), ("b", None)]


@pytest.mark.parametrize("kind", ["manifest", "audio_folder", "webdataset", "kaldi"])
def test_sources_from_folders_of_different_splits(tmp_path: Path, kind: str) -> None:
    for split in ("train-clean", "test-clean"):
        folder = tmp_path / split
        folder.mkdir()
        (folder / "a.wav").write_bytes(clip(300))
        (folder / "a.txt").write_text("a")
        write_jsonl(folder / "manifest.jsonl", [{"audio": "a.wav", "text": "a"}])
        (folder / "wav.scp").write_text("a a.wav\n")
        (folder / "text").write_text("a a\n")
        with tarfile.open(folder / "0.tar", "w") as tar:
            for name in ("a.wav", "a.txt"):
                tar.add(folder / name, name)
    sources = [{"kind": kind, "path": str(tmp_path / split)} for split in ("train-clean", "test-clean")]
    assert [row["split"] for row in read(*sources, language="en")] == ["train", "test"]
    assert [row["split"] for row in read(sources[1], language="en")] == [None], "alone it is whatever is wanted of it"
