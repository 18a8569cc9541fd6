"""Names that sources go by: languages, splits, files and kinds of folder."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from raykd.config.data import DataConfig
from raykd.data.files import child, list_files, relative_to
from raykd.data.languages import whisper_code
from raykd.data.sources.recognise import recognise_folder, with_speech_kinds
from raykd.data.utterances import Origin, split_name, split_of_file, split_of_folder, tables, utterance
from raykd.errors import UserError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("cs", "cs"),
        ("cs-CZ", "cs"),
        ("cs_cz", "cs"),
        ("Czech", "cs"),
        (" czech ", "cs"),
        ("zh-TW", "zh"),
        ("Mandarin Chinese", "zh"),
        ("Cantonese Chinese", "yue"),
        ("Latin American Spanish", "es"),
        ("Haitian Creole", "ht"),
        ("nb_no", "no"),
        ("fil_ph", "tl"),
        ("nn-NO", "nn"),
        ("nan-tw", None),
        ("Klingon", None),
        ("", None),
    ],
)
def test_languages_become_the_codes_of_whisper(name: str, code: str | None) -> None:
    assert whisper_code(name) == code


def test_splits_have_one_name_each() -> None:
    names = {
        "Train": "train",
        "train.100": "train",
        "training": "train",
        "validation": "dev",
        "val": "dev",
        "test_ood": "test_ood",
    }
    assert {name: split_name(name) for name in names} == names
    around = {
        "test-clean": "test",
        "test_clean": "test",
        "validation.clean": "dev",
        "dev-other": "dev",
        "train_clean_100": "train",
        "Test2": "test",
        "asr_eval": "test",
    }
    assert {name: split_name(name) for name in around} == around
    assert split_name("test-clean", ("test-clean",)) == "test-clean", "one that the config asks for stays"
    assert split_name("trainer") == "trainer"
    assert split_name("latest") == "latest"
    assert split_name("train_test") is None


def test_splits_in_names_of_files() -> None:
    names = {
        "train.jsonl": "train",
        "test_ood-00001.parquet": "test_ood",
        "cs/validation-00000-of-00012.parquet": "validation",
        "valid/000.tar": "valid",
        "train-000.tar.gz": "train",
        "my_test_results.csv": "my_test_results",
        "LibriSpeech/test-clean/1.flac": "test-clean",
        "manifest.jsonl": None,
        "000123.tar": None,
    }
    assert {name: split_of_file(name) for name in names} == names
    assert split_of_folder("test/a/b.wav") == "test"
    assert split_of_folder("a/test/b.wav") is None
    assert split_of_folder("test") is None


def test_paths_below_local_folders_and_uris() -> None:
    assert child("/data", "./a/../b.wav") == "/data/b.wav"
    assert child("/data", "/other/b.wav") == "/other/b.wav"
    assert child("s3://bucket/data/?region=eu", "a/b.wav") == "s3://bucket/data/a/b.wav?region=eu"
    assert child("s3://bucket/data", "gs://other/b.wav") == "gs://other/b.wav"
    assert relative_to("/data", "/data/a/b.wav") == "a/b.wav"
    assert relative_to("/data", "/database/b.wav") == "/database/b.wav"
    assert relative_to("s3://bucket/data?region=eu", "s3://bucket/data/a/b.wav?region=eu") == "a/b.wav"


def test_globs_stay_within_a_folder_unless_they_say_so(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "sub/c.csv", "sub/deep/d.csv", ".hidden/e.csv", "a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")

    def names(glob: str) -> list[str]:
        return [file.name for file in list_files(str(tmp_path / glob), (".csv",), "table")]

    assert names("*.csv") == ["a.csv", "b.csv"]
    assert names("[b-z].csv") == ["b.csv"]
    assert names("**/*.csv") == ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"]
    assert names("*/c.csv") == ["sub/c.csv"]
    assert names("") == ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"]
    assert list_files(str(tmp_path / "s*/c.csv"), (".csv",), "table")[0].path == str(tmp_path / "sub/c.csv")
    with pytest.raises(UserError, match=r"no table in .*\.csv"):
        names("*.none")


def test_a_stamp_changes_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    (before,) = list_files(str(tmp_path), (".csv",), "table")
    (tmp_path / "a.csv").write_text("longer")
    (after,) = list_files(str(tmp_path), (".csv",), "table")
    assert before.stamp != after.stamp


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["clips/a.mp3", "train.tsv", "README.md"], "common_voice"),
        (["dataset_dict.json", "train/data-00000-of-00001.arrow"], "huggingface"),
        (["state.json", "dataset_info.json", "data-00000-of-00001.arrow"], "huggingface"),
        (["README.md", "data/train-00000-of-00001.parquet"], "huggingface"),
        (["00000.tar", "00001.tar"], "webdataset"),
        (["train/00000.tar.gz"], "webdataset"),
        (["manifest.jsonl", "audio/a.flac"], "manifest"),
        (["train.csv", "test.csv"], "manifest"),
        (["train-00000.parquet"], "manifest"),
        (["train/0.parquet", "test/0.parquet"], "manifest"),
        (["a.wav", "a.txt"], "audio_folder"),
        (["metadata.csv", "a.wav"], "audio_folder"),
        (["train/metadata.jsonl", "train/a.wav"], "audio_folder"),
    ],
)
def test_folders_are_recognised(tmp_path: Path, files: list[str], kind: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert recognise_folder(str(tmp_path)) == kind
    config = DataConfig.model_validate({"source": str(tmp_path)})
    assert [source.kind for source in config.source] == ["auto"]
    assert [source.kind for source in with_speech_kinds(config).source] == [kind]


def test_paths_that_are_no_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes\.txt is no manifest"):
        recognise_folder(str(tmp_path / "notes.txt"))
    with pytest.raises(UserError, match="none does not exist"):
        recognise_folder(str(tmp_path / "none"))
    with pytest.raises(UserError, match="cannot be opened as a filesystem"):
        recognise_folder("nosuchscheme://bucket/folder")


def test_blocks_stay_small_whatever_the_clips(tmp_path: Path) -> None:
    origin = Origin(str(tmp_path), str(tmp_path), language="en")
    long_clip = bytes(17 << 20)
    sizes = [
        table.num_rows
        for table in tables(utterance({"audio": long_clip, "text": "a"}, str(number), origin) for number in range(5))
    ]
    assert sizes == [2, 2, 1]
    assert [table.num_rows for table in tables(utterance({}, str(number), origin) for number in range(600))] == [256, 256, 88]


def test_values_of_any_type_make_a_row(tmp_path: Path) -> None:
    origin = Origin(str(tmp_path), str(tmp_path), language="en")
    for odd in (None, True, 3, -1.5, float("nan"), [], [1], {}, {"bytes": 3}, "", "\ud800", b"", b"x"):
        fields = dict.fromkeys(("id", "audio", "text", "language", "duration", "split", "offset"), odd)
        (table,) = tables([utterance(fields, "here", origin)])
        assert table.column("problem")[0].as_py() is not None
        assert re.fullmatch(r"here|3|-1\.5|x|\N{REPLACEMENT CHARACTER}", table.column("id")[0].as_py())
        assert isinstance(table, pa.Table)
