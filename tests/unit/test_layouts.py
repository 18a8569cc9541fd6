"""Speech as releases, tools and spreadsheets lay it out."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from raykd.config.data import DataConfig
from raykd.data.audio import read_samples
from raykd.data.sources import all_parts
from raykd.errors import UserError


def speak(path: Path, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(int(16_000 * seconds)) / 9), 16_000)


def rows(source: Any, language: str = "en", **settings: Any) -> dict[str, dict[str, Any]]:
    config = DataConfig.model_validate({"source": source, "language": language, **settings})
    found = [row for part in all_parts(config) for row in part.rows()]
    by_id = {row["id"]: row for row in found}
    assert len(by_id) == len(found), "ids are unique"
    return by_id


def texts(found: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {name: (row["text"], row["split"]) for name, row in found.items()}


def test_librispeech(tmp_path: Path) -> None:
    for split, number in (("train-clean-100", 103), ("test-other", 367)):
        folder = tmp_path / "LibriSpeech" / split / str(number) / "1240"
        for part in range(2):
            speak(folder / f"{number}-1240-{part:04d}.flac")
        lines = [f"{number}-1240-{part:04d} SENTENCE {part} OF {split.upper()}" for part in range(2)]
        (folder / f"{number}-1240.trans.txt").write_text("\n".join(lines) + "\n")
    found = texts(rows(str(tmp_path / "LibriSpeech")))
    assert found == {
        f"{split}/{number}/1240/{number}-1240-{part:04d}.flac": (f"SENTENCE {part} OF {split.upper()}", ours)
        for split, number, ours in (("train-clean-100", 103, "train"), ("test-other", 367, "test"))
        for part in range(2)
    }
    kept = rows(str(tmp_path / "LibriSpeech"), test_splits=["test-other"])
    assert {row["split"] for row in kept.values()} == {"train", "test-other"}


def test_multilingual_librispeech(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        speak(tmp_path / split / "audio" / "10" / "20" / "10_20_0000.flac")
        (tmp_path / split / "transcripts.txt").write_text(f"10_20_0000\tein satz aus {split}\n")
    assert texts(rows(str(tmp_path))) == {
        f"{split}/audio/10/20/10_20_0000.flac": (f"ein satz aus {split}", split) for split in ("train", "dev")
    }


def test_ljspeech(tmp_path: Path) -> None:
    lines = ["LJ001-0001|Printing, in 1 sense|Printing, in one sense", 'LJ001-0002|a "quoted|a "quoted']
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    for number in (1, 2):
        speak(tmp_path / "wavs" / f"LJ001-000{number}.wav")
    found = {name: row["text"] for name, row in rows(str(tmp_path)).items()}
    assert found == {"wavs/LJ001-0001.wav": "Printing, in one sense", "wavs/LJ001-0002.wav": 'a "quoted'}


def test_fleurs(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        speak(tmp_path / "audio" / split / "1.wav")
        line = f"1521\t1.wav\tRaw, {split}.\traw {split}\tr a w |\t16000\tFEMALE\n"
        (tmp_path / f"{split}.tsv").write_text(line + line.replace("1.wav", "2.wav"))
    found = rows({"kind": "manifest", "path": str(tmp_path)})
    assert len(found) == 4
    assert found["audio/dev/1.wav"]["text"] == "raw dev"
    assert found["audio/dev/1.wav"]["split"] == "dev"
    assert Path(found["audio/dev/1.wav"]["path"]).exists()


def test_voxpopuli(tmp_path: Path) -> None:
    name = "20180612-0900-PLENARY-13-cs_20180612-20:51:33_0"
    speak(tmp_path / "2018" / f"{name}.ogg")
    for split in ("train", "test"):
        header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender"
        (tmp_path / f"asr_{split}.tsv").write_text(f"{header}\n{name}\tRaw, {split}.\traw {split}\t28\t{split}\tmale\n")
    found = [row for part in all_parts(DataConfig(source=str(tmp_path), language="cs")) for row in part.rows()]
    assert [(row["split"], row["text"], row["recording"], row["problem"]) for row in found] == [
        ("test", "raw test", "28", None),
        ("train", "raw train", "28", None),
    ]
    assert all(Path(row["path"]).exists() for row in found)


@pytest.mark.parametrize("form", ["column of rates", "hugging face", "two channels"])
def test_arrays_of_samples(tmp_path: Path, form: str) -> None:
    tone = [0.3 * math.sin(number / 5) for number in range(24_000)]
    audio: object = {
        "column of rates": tone,
        "hugging face": {"array": tone, "sampling_rate": 24_000, "path": None},
        "two channels": [tone, tone],
    }[form]
    row = {"audio": audio, "text": "one second", "language": "en", "split": "train"}
    if form != "hugging face":
        row["sampling_rate"] = 24_000
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text(json.dumps({key: row[key] for key in row if key != "sampling_rate"}) + "\n")
    read = [next(iter(part.rows())) for part in all_parts(DataConfig(source=str(tmp_path / "rows.parquet")))]
    samples = read_samples(read[0])
    assert len(samples) == 16_000
    assert abs(float(np.abs(samples[1000:-1000]).max()) - 0.3) < 0.01
    (other,) = [next(iter(part.rows())) for part in all_parts(DataConfig(source=str(tmp_path / "rows.jsonl")))]
    assert other["problem"] == (None if form == "hugging face" else "samples without their rate")


def test_kaldi(tmp_path: Path) -> None:
    speak(tmp_path / "corpus" / "rec1.wav", 4)
    speak(tmp_path / "corpus" / "rec2.wav", 4)
    for split in ("train", "test"):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        (folder / "wav.scp").write_text("rec1 corpus/rec1.wav\nrec2 sph2pipe -f wav x.sph |\n")
        (folder / "segments").write_text("utt1 rec1 0.50 1.75\nutt2 rec1 2.00 3.00\nutt3 rec2 0 1\n")
        (folder / "text").write_text(f"utt1 HELLO {split}\nutt2 TWO WORDS\n")
        (folder / "utt2spk").write_text("utt1 anna\nutt2 bert\nutt3 anna\n")
    found = [row for part in all_parts(DataConfig(source=str(tmp_path / "data"), language="en")) for row in part.rows()]
    trained = {row["id"]: row for row in found if row["split"] == "train"}
    assert (trained["utt1"]["text"], trained["utt1"]["start_s"], trained["utt1"]["duration_s"]) == ("HELLO train", 0.5, 1.25)
    assert trained["utt1"]["path"] == str(tmp_path / "corpus" / "rec1.wav")
    assert trained["utt1"]["recording"] == "anna"
    assert trained["utt3"]["problem"] == "a command in wav.scp, not a file"
    assert sum(row["split"] == "test" for row in found) == 3


def test_columns_of_other_names_and_units(tmp_path: Path) -> None:
    lines = ["clip;said;from;to;who", "a.wav;hello;500;1500;x", "a.wav;there;1500;2000;x"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    columns = {"audio": "clip", "text": "said", "start": "from", "end": "to", "recording": "who"}
    found = rows({"path": str(tmp_path / "m.csv"), "columns": {**columns, "time_unit": "ms"}})
    assert [(row["text"], row["start_s"], row["duration_s"]) for row in found.values()] == [
        ("hello", 0.5, 1.0),
        ("there", 1.5, 0.5),
    ]
    found = rows({"path": str(tmp_path / "m.csv"), "columns": {**columns, "time_unit": "samples", "rate": 1000}})
    assert [row["start_s"] for row in found.values()] == [0.5, 1.5]
    with pytest.raises(
        UserError, match=r"m\.csv: no column speech, which data\.source\.columns names \(columns found: clip, said"
    ):
        rows({"path": str(tmp_path / "m.csv"), "columns": {"audio": "speech", "text": "said"}})


def test_times_in_milliseconds_and_samples_are_seen(tmp_path: Path) -> None:
    both = [
        {"audio": "a.wav", "text": "a", "start_ms": 1000, "end_ms": 2500},
        {"audio": "a.wav", "text": "b", "start_sample": 9},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both))
    first, second = rows(str(tmp_path / "m.jsonl")).values()
    assert (first["start_s"], first["duration_s"]) == (1.0, 1.5)
    assert second["problem"].startswith("part of a longer recording in samples")


PLAIN = {"a.wav": "first", "b.wav": 'she said "go"', "c.wav": "third; and, last"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", b'audio,text\na.wav,first\nb.wav,"she said ""go"""\nc.wav,"third; and, last"\n'),
        ("m.csv", b'\xef\xbb\xbfAudio;Text\r\na.wav;first\r\nb.wav;"she said ""go"""\r\nc.wav;"third; and, last"\r\n'),
        ("m.csv", b'sep=|\r\naudio|text\r\na.wav|first\r\nb.wav|"she said ""go"""\r\nc.wav|third; and, last\r\n'),
        ("m.tsv", b'path\tsentence\na.wav\tfirst\nb.wav\t"she said ""go"""\nc.wav\tthird; and, last\n'),
        ("m.tsv", 'PATH\tSENTENCE\na.wav\tfirst\nb.wav\tshe said "go"\nc.wav\tthird; and, last\n'.encode("utf-16")),
        ("m.csv", b'audio,text\ra.wav,first\rb.wav,"she said ""go"""\rc.wav,"third; and, last"\r'),
        ("m.csv.gz", gzip.compress(b'audio,text\na.wav,first\nb.wav,"she said ""go"""\nc.wav,"third; and, last"\n')),
        ("m.jsonl.gz", gzip.compress("".join(json.dumps({"audio": a, "text": t}) + "\n" for a, t in PLAIN.items()).encode())),
    ],
)
def test_tables_as_people_save_them(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert {row["id"]: row["text"] for row in rows(str(tmp_path / name)).values()} == PLAIN


def test_a_quotation_does_not_swallow_the_rows_after_it(tmp_path: Path) -> None:
    lines = ["audio,text", 'a.wav,"well then', 'b.wav,"over', 'two lines"', 'c.wav,say "go" now', 'd.wav,"so', "e.wav,last"]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    assert {row["id"]: row["text"] for row in rows(str(tmp_path / "m.csv")).values()} == {
        "a.wav": '"well then',
        "b.wav": "over\ntwo lines",
        "c.wav": 'say "go" now',
        "d.wav": '"so',
        "e.wav": "last",
    }


@pytest.mark.parametrize(
    ("line", "text", "last"),
    [
        (r'"she said \"go\", now",ann', 'she said "go", now', "ann"),
        (r'"\"go\" she said",ann', '"go" she said', "ann"),
        (r'"5\", then more",ann', '5", then more', "ann"),
        (r'"at C:\new \"x\" \\",ann', 'at C:\\new "x" \\', "ann"),
        (r'"the dir C:\a\",ann', "the dir C:\\a\\", "ann"),
        ('"said \\"go\nnow\\"",ann', 'said "go\nnow"', "ann"),
        ('"hello, there",5" disk', "hello, there", '5" disk'),
        ('"hello, there","5" disk"', "hello, there", '"5" disk"'),
        ('"over\ntwo, lines",5" disk', "over\ntwo, lines", '5" disk'),
        ('"said "go" now",ann', '"said "go" now"', "ann"),
        (' "hello, there" ,ann', "hello, there", "ann"),
    ],
)
@pytest.mark.parametrize("missing", ["", ",", ",,"])
def test_quotes_of_every_program(tmp_path: Path, line: str, text: str, last: str, missing: str) -> None:
    """A field is the same one whether the optional last columns are written or left out."""
    (tmp_path / "m.csv").write_text(f"audio,text,recording,split,notes\na.wav,{line}{missing}\nb.wav,next,bob\n")
    found = rows(str(tmp_path / "m.csv"))
    assert {name: (row["text"], row["recording"], row["problem"]) for name, row in found.items()} == {
        "a.wav": (text, last, None),
        "b.wav": ("next", "bob", None),
    }


@pytest.mark.parametrize("line", ['"she said "go", now",ann', '"well then,5" disk', '"she said "go", now"'])
def test_quotes_that_may_hold_a_delimiter_are_not_guessed(tmp_path: Path, line: str) -> None:
    (tmp_path / "m.csv").write_text(f"audio,text,recording,split,notes\na.wav,{line}\nb.wav,next\n")
    assert {name: row["problem"] for name, row in rows(str(tmp_path / "m.csv")).items()} == {
        "m.csv:2": "quotes that do not pair up",
        "b.wav": None,
    }


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ['a\t"the first', 'the second"\tann', "b\tother\tbob"],
            {"a": ("the first\nthe second", "ann"), "b": ("other", "bob")},
        ),
        (['a\t"say ""go""', "", '""now"""\tann'], {"a": ('say "go"\n\n"now"', "ann")}),
        (['a\t"well', 'b\tthen"\tbob'], {"a": ('"well', "."), "b": ('then"', "bob")}),
        (['a\t"well\tann', "b\tx\ty", 'c\tthen"\tbob'], {"a": ('"well', "ann"), "b": ("x", "y"), "c": ('then"', "bob")}),
        (['a\t"a\ttab"\tann', 'b\tthen"\tbob'], {"a": ("a\ttab", "ann"), "b": ('then"', "bob")}),
    ],
)
def test_lines_in_a_field_between_tabs(tmp_path: Path, lines: list[str], expected: dict[str, tuple[str, str]]) -> None:
    (tmp_path / "m.tsv").write_text("\n".join(["path\tsentence\tclient_id", *lines]) + "\n")
    found = rows(str(tmp_path / "m.tsv"))
    assert {name: (row["text"], row["recording"]) for name, row in found.items()} == expected


def test_a_field_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"audio,text,notes\na.wav,short,{'x' * 300_000}\nb.wav,other,\n")
    assert [row["text"] for row in rows(str(tmp_path / "m.csv")).values()] == ["short", "other"]


def test_files_that_need_another_decoder_are_counted(tmp_path: Path) -> None:
    speak(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("a")
    others = {f"b{suffix}" for suffix in (".m4a", ".m4b", ".weba", ".mpeg", ".sph", ".aifc", ".snd", ".BWF")}
    for name in others:
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypM4A ")
    (tmp_path / "b.txt").write_text("b")
    assert set(rows({"kind": "audio_folder", "path": str(tmp_path)})) == {"a.wav", *others}


def test_ids_do_not_depend_on_where_the_command_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speak(tmp_path / "set" / "train" / "a.wav")
    (tmp_path / "set" / "train" / "metadata.jsonl").write_text('{"file_name": "a.wav", "text": "a"}\n')
    seen = []
    for place, path in ((tmp_path, "set"), (tmp_path / "set", "."), (tmp_path / "set" / "train", "..")):
        monkeypatch.chdir(place)
        seen.append([list(rows({"kind": kind, "path": path})) for kind in ("audio_folder", "huggingface")])
    assert seen[0] == seen[1] == seen[2]


def test_a_split_with_two_meanings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "text": "a", "split": "train_test"}\n')
    (row,) = rows(str(tmp_path / "m.jsonl")).values()
    assert (row["split"], row["problem"]) == (None, "unclear split")
