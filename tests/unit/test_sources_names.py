"""Names that sources go by: languages, splits, files and kinds of folder."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from raykd.config.data import DataConfig
from raykd.data.files import child, list_files, read_lines, relative_to
from raykd.data.languages import whisper_code
from raykd.data.sources.recognise import recognise_folder, with_speech_kinds
from raykd.data.split_names import chosen_splits, split_name, split_of_file, split_of_folders, splits_beside
from raykd.data.utterances import Origin, tables, utterance
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
        ("Yue Chinese", "yue"),
        ("Chinese (Cantonese)", "yue"),
        ("zh-yue", "yue"),
        ("zh_yue_HK", "yue"),
        ("zh-cmn-Hans", "zh"),
        ("Taiwanese Mandarin", "zh"),
        ("zh-min-nan", None),
        ("Min Nan Chinese", None),
        ("Hakka Chinese", None),
        ("zh-wuu", None),
        ("Crimean Tatar", None),
        ("Nigerian Pidgin English", None),
        ("English, French", None),
        ("en-US, de-DE", None),
        ("English and Czech", None),
        ("cs/sk", None),
        ("Spanish; Castilian", "es"),
        ("en-US, en-GB", "en"),
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
        "trainset": "train",
        "testdata": "test",
        "devel": "dev",
        "TestClean": "test",
        "held-out": "test",
        "tests": "test",
        "Trainingsdaten": "train",
        "dev93": "dev",
    }
    assert {name: split_name(name) for name in around} == around
    for own in ("test_other", "Test-Other", "test other"):
        assert split_name("test-other", (own,)) == own, "however the config writes it"
    assert split_name("test-clean", ("test-clean",)) == "test-clean", "one that the config asks for stays"
    assert split_name("trainer") == "trainer"
    assert split_name("latest") == "latest"
    for two in ("train_test", "devtest", "dev-test", "train/test/a.wav"):
        assert split_name(two) is None


def test_splits_in_names_of_files() -> None:
    names = {
        "train.jsonl": "train",
        "test_ood-00001.parquet": "test_ood",
        "cs/validation-00000-of-00012.parquet": "validation",
        "valid/000.tar": "valid",
        "train-000.tar.gz": "train",
        "my_test_results.csv": "my_test_results",
        "LibriSpeech/test-clean/1.flac": "test-clean",
        "cs.train.jsonl": "cs.train",
        "clean.test-00000-of-00001.parquet": "clean.test",
        "testset.csv": "testset",
        "TRAIN.CSV.GZ": "TRAIN",
        "held_out.jsonl": "held_out",
        "manifest.jsonl": None,
        "000123.tar": None,
    }
    assert {name: split_of_file(name) for name in names} == names
    assert split_of_folders("test/a/b.wav") == "test"
    assert split_of_folders("LibriSpeech/test-clean/b.wav") == "test-clean"
    assert split_of_folders("test") is None
    assert split_of_folders("test/test_ood/b.wav") == "test_ood"
    assert split_of_folders("train_test/train/b.wav") == "train"
    assert split_of_folders("train/x/test/b.wav") == "train/x/test"


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (["c/train/m.jsonl", "c/test/m.jsonl"], ["train", "test"]),
        (["/c/train-clean-100", "/c/test-clean/"], ["train-clean-100", "test-clean"]),
        (["c/train/000.tar", "c/test/*.tar"], ["train", "test"]),
        (["s3://b/train?region=eu", "s3://b/test/x.csv.gz?region=eu"], ["train", "test"]),
        (["c/clips", "c/test"], [None, "test"]),
        (["c/test/m.jsonl"], [None]),
        (["c/test/a.jsonl", "c/test/b.jsonl"], [None, None]),
        (["speech-test/a.jsonl", "speech-test/cv/b.jsonl"], [None, None]),
        (["/data/test/corpus/a.jsonl", "/data/train/corpus/b.jsonl"], [None, None]),
        ([None, "c/dev"], [None, "dev"]),
    ],
)
def test_sources_of_different_splits_are_told_apart_by_their_folders(paths: list[str | None], told: list[str | None]) -> None:
    assert splits_beside(paths) == told


def test_paths_below_local_folders_and_uris() -> None:
    assert child("/data", "./a/../b.wav") == "/data/b.wav"
    assert child("/data", "/other/b.wav") == "/other/b.wav"
    assert child("s3://bucket/data/?region=eu", "a/b.wav") == "s3://bucket/data/a/b.wav?region=eu"
    assert child("s3://bucket/data", "gs://other/b.wav") == "gs://other/b.wav"
    assert relative_to("/data", "/data/a/b.wav") == "a/b.wav"
    assert relative_to("/data", "/database/b.wav") == "/database/b.wav"
    assert relative_to("s3://bucket/data?region=eu", "s3://bucket/data/a/b.wav?region=eu") == "a/b.wav"


def test_brackets_in_the_name_of_what_is_there_are_letters(tmp_path: Path) -> None:
    folder = tmp_path / "corpus [2024-01]"
    folder.mkdir()
    (folder / "a.csv").write_text("audio,text\nx.wav,x\n")
    for path in (folder, folder / "a.csv", folder / "*.csv", folder / "[ab].csv"):
        assert DataConfig.model_validate({"source": str(path)})
        assert [file.path for file in list_files(str(path), (".csv",), "table")] == [str(folder / "a.csv")]
    with pytest.raises(UserError, match=r"^text\.source: .*\[2024-02\] is no pattern of files \(bad character range 4-0\)"):
        list_files(str(tmp_path / "corpus [2024-02]"), (".csv",), "table", key="text.source")


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


def test_links_are_followed_and_nothing_is_listed_twice(tmp_path: Path) -> None:
    for name in ("rec/a.csv", "rec/v2/b.csv", "rec/v2/deep/c.csv", "elsewhere/d.csv", "elsewhere/of/e.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    for link, target in {
        "rec/again": ".",
        "rec/above": "..",
        "rec/v2/up": "../..",
        "rec/v2/deep/round": "../../v2",
        "rec/current": "v2",
        "rec/other": str(tmp_path / "elsewhere"),
        "elsewhere/back": str(tmp_path / "rec"),
        "elsewhere/of/nowhere": "gone",
    }.items():
        (tmp_path / link).symlink_to(target)

    def listed(path: str) -> list[str]:
        return [file.name for file in list_files(path, (".csv",), "table")]

    assert listed(str(tmp_path / "rec")) == ["a.csv", "other/d.csv", "other/of/e.csv", "v2/b.csv", "v2/deep/c.csv"]
    assert listed((tmp_path / "rec").as_uri()) == listed(str(tmp_path / "rec"))
    assert listed(str(tmp_path / "rec/current")) == ["b.csv", "deep/c.csv"], "a source may be a link"
    assert listed(str(tmp_path / "rec/cur*/*.csv")) == ["current/b.csv"], "a pattern may name one"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a one\nb two\n", ["a one", "b two"]),
        (b"\xef\xbb\xbfa one\r\nb two", ["a one", "b two"]),
        (b"a one\rb two\r", ["a one", "b two"]),
        (b"a one\n\nb two\n", ["a one", "", "b two"]),
        ("a the first\u2028half\nb of\x85it\x0b\x0c\x1c\n".encode(), ["a the first\u2028half", "b of\x85it\x0b\x0c\x1c"]),
        (b"a the first\rhalf\nb two\n", ["a the first\rhalf", "b two"]),
    ],
)
def test_a_line_ends_where_its_file_says(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    (tmp_path / "text").write_bytes(content)
    assert read_lines(str(tmp_path / "text")) == lines


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
        (["README.md", "data/a.wav", "manifest.jsonl"], "manifest"),
        (["TRAIN.CSV", "a.wav"], "manifest"),
        (["X.TAR"], "webdataset"),
        (["train_clean_5/wav.scp", "dev_clean_2/wav.scp"], "kaldi"),
        (["trainset/0.csv"], "manifest"),
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


def test_splits_that_a_config_chooses_are_named_as_a_person_would_and_must_be_there() -> None:
    there = {"train", "dev", "test_other"}
    assert chosen_splits(["validation", "Train", "test-other", "dev"], there, "label.splits") == ("dev", "train", "test_other")
    with pytest.raises(UserError, match=r"label\.splits: the data has no split trian; it has dev, test_other, train"):
        chosen_splits(["trian", "dev"], there, "label.splits")
