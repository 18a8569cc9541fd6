"""Reading a config listed the folders of its sources, over the network for `s3://`; and every call made a new client."""

from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from raykd import storage
from raykd.config import Config, MlmRunConfig, load_config
from raykd.config.data import AudioFolderSource
from raykd.data.sources import recognise
from raykd.data.sources.recognise import with_kinds
from raykd.errors import UserError
from raykd.preflight import check_sources, check_text
from raykd.runs import opened_run
from raykd.tracking.progress import Progress

TREE: dict[str, Any] = {
    "teacher": {"model": "openai/whisper-tiny"},
    "objective": {"recipe": "kd"},
    "train": {"steps": 1},
    "tracking": {"mlflow": False},
}


def speech(source: Any, **changes: Any) -> Config:
    return Config.model_validate({**TREE, "data": {"source": source}, **changes})


def text(source: Any) -> MlmRunConfig:
    return MlmRunConfig.model_validate({"text": {"source": source, "language": "cs"}, "train": {"steps": 1}})


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "a.wav").touch()
    return folder


def test_reading_a_config_looks_at_no_filesystem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> Any:
        pytest.fail(f"looked at {path}")

    monkeypatch.setattr(storage, "filesystem_of", fail)
    monkeypatch.setattr(storage, "_client", fail)
    monkeypatch.setattr(recognise, "filesystem_of", fail)
    places = ["s3://bucket/speech", "nowhere", "xyz://b/cv", {"path": "recordings", "language": "cs"}]
    assert [source.kind for source in speech(places).data.source] == ["auto"] * 4
    assert [source.kind for source in text(places[:3]).text.source] == ["auto"] * 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "data.source: nowhere does not exist; give a manifest, a tar, a folder, hf:NAME or demo"),
        (["demo", "nowhere"], "data.source[1]: nowhere does not exist; give a manifest, a tar, a folder, hf:NAME or demo"),
        ("run.yaml", "data.source: run.yaml is no manifest (.jsonl, .csv, .tsv, .parquet), no tar and no folder"),
        (
            "xyz://b/cv",
            "data.source: xyz://b/cv: cannot be opened as a filesystem (Unrecognized filesystem type in URI: xyz://b)",
        ),
        ("nowhere.jsonl", "data.source: nowhere.jsonl does not exist; correct the path"),
        (
            {"path": "recordings", "text_column": "t"},
            "data.source.text_column: unknown key; known here: kind, language, path",
        ),
    ],
)
def test_a_source_that_is_not_there_is_refused_before_ray_starts(
    tmp_path: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch, source: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").touch()
    with pytest.raises(UserError) as refused:
        check_sources(speech(source).data)
    assert str(refused.value) == message


def test_text_that_is_not_there_is_refused_before_ray_starts() -> None:
    with pytest.raises(UserError, match=r"^text\.source: nowhere does not exist"):
        check_text(text("nowhere").text)


def test_the_run_folder_holds_the_kind_that_was_found(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recordings.parent)
    config = speech({"path": "recordings", "language": "cs"})
    with opened_run(config, False, 1, Progress(quiet=True)) as (resolved, run):
        assert resolved.data.source == (AudioFolderSource(path=str(recordings), language="cs"),)
        assert load_config(run.config_path) == resolved
    with opened_run(config, True, 1, Progress(quiet=True)) as (_, again):
        assert again == run


def test_a_bucket_has_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    query = "?region=eu-central-1&endpoint_override=localhost:1"
    (one, path), (two, other) = (storage.filesystem_of(f"s3://one-client/{name}{query}") for name in ("a/b%20c/", "d"))
    assert one is two
    assert (path, other) == ("one-client/a/b c", "one-client/d")
    assert storage.filesystem_of(f"s3://one-client{query}") == (one, "one-client")
    assert storage.filesystem_of(f"s3://another-client/a{query}")[0] is not one
    uris = (
        "fsspec+memory://one-client/a%20b/",
        "fsspec+memory://one-client",
        "fsspec+file:///tmp/a",
        "file:///tmp/a%20b",
        "file:///",
    )
    for uri in uris:
        assert storage.filesystem_of(uri)[1] == fs.FileSystem.from_uri(uri)[1]


def test_a_source_is_recognised_once_and_stays(recordings: Path) -> None:
    known = with_kinds(speech(str(recordings)))
    (recordings / "a.wav").rename(recordings / "a.tar")
    assert with_kinds(known) == known
