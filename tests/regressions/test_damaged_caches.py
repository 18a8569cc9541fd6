"""A corpus or scores in the cache that a crash or a full disk had damaged gave a traceback in every run, for ever."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raykd import storage, teachers
from raykd.data.corpus import Corpus, open_corpus
from raykd.errors import UserError
from raykd.evaluation.result import Evaluation
from raykd.training.cluster import Resources
from tests.corpora import make_corpus, row
from tests.teachers import student_of

ALONE = Resources(
    workers=1, gpus_per_worker=0.0, cpus_per_worker=1.0, threads_per_worker=1, share=1.0, evaluation_gpus=0.0, nodes=1
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_whisper_dir: Path) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), tiny_whisper_dir, [row(number) for number in range(20)])


def shard(folder: Path) -> Path:
    return min(folder.glob("shard-*.arrow"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def without(folder: Path, key: str) -> None:
    summary = json.loads((folder / "corpus.json").read_text())
    del summary[key]
    (folder / "corpus.json").write_text(json.dumps(summary))


def page_changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "summary cut": (lambda folder: cut(folder / "corpus.json"), "damaged ("),
    "summary of another kind": (lambda folder: (folder / "corpus.json").write_text("[]"), "corpus.json has no key"),
    "no padding": (lambda folder: without(folder, "pad_id"), "corpus.json has no pad_id"),
    "no index": (lambda folder: (folder / "index.parquet").unlink(), "index.parquet"),
    "index cut": (lambda folder: cut(folder / "index.parquet"), "Parquet"),
    "index changed": (lambda folder: page_changed(folder / "index.parquet"), "index.parquet: "),
    "no rejects": (lambda folder: (folder / "rejects.parquet").unlink(), "rejects.parquet"),
    "no shard": (lambda folder: shard(folder).unlink(), "has 0 bytes instead of"),
    "shard cut": (lambda folder: cut(shard(folder)), "bytes instead of"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_corpus_is_set_aside(tmp_path: Path, whole: Corpus, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "key"
    do, said = DAMAGES[damage]
    for number in (1, 2):
        shutil.copytree(whole.path, folder)
        assert open_corpus(str(folder)) is not None
        do(folder)
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert open_corpus(str(folder)) is None
        (message,) = caplog.messages
        assert said in message
        assert f"kept as {folder}.damaged-{number} and made again" in message
        assert "\n" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.damaged-1", "key.damaged-2"]


def test_a_corpus_of_an_older_version_names_no_sizes(tmp_path: Path, whole: Corpus) -> None:
    folder = tmp_path / "key"
    shutil.copytree(whole.path, folder)
    without(folder, "files")
    assert open_corpus(str(folder)) is not None
    shard(folder).unlink()
    assert open_corpus(str(folder)) is None


def test_a_remote_one_is_removed(whole: Corpus) -> None:
    folder = "fsspec+memory://damaged-caches/key"
    for name in storage.list_dir(whole.path):
        storage.write_bytes(f"{folder}/{name}", storage.read_bytes(storage.join(whole.path, name)))
    assert open_corpus(folder) is not None
    storage.write_bytes(f"{folder}/corpus.json", b"{")
    assert open_corpus(folder) is None
    assert storage.list_dir(folder) == []


def test_one_that_cannot_be_read_now_is_kept(whole: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> bytes:
        raise OSError("the bucket does not answer")

    monkeypatch.setattr(storage, "read_bytes", fail)
    with pytest.raises(UserError, match=r"cannot be read \(the bucket does not answer\)"):
        open_corpus(whole.path)
    assert Path(whole.path).is_dir()


def test_damaged_scores_of_a_teacher_are_computed_again(
    tmp_path: Path, whole: Corpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scored: list[int] = []

    def evaluate(*arguments: Any, **settings: Any) -> Evaluation:
        scored.append(1)
        return Evaluation(pa.table({"id": ["a"], "wer": [0.5]}), {"split": "test", "wer": 0.5})

    monkeypatch.setattr(teachers, "evaluate_model", evaluate)

    def scores() -> Evaluation:
        return teachers.evaluate_teacher("m", "hash", whole, "test", student_of(tmp_path), ALONE)

    first = scores()
    assert scores() == first
    assert len(scored) == 1
    for number, name in enumerate(("rows.parquet", "summary.json"), start=2):
        (path,) = (tmp_path / "cache" / "evaluations").glob(f"*/{name}")
        cut(path)
        assert scores() == first
        assert len(scored) == number
        assert "the teacher is scored again" in caplog.messages[-1]
    assert scores() == first
    assert len(scored) == 3
