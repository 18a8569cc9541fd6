from pathlib import Path

import pytest
import yaml

from raykd import storage
from raykd.config import load_config
from raykd.errors import UserError
from raykd.tracking.run_folder import RunFolder
from tests.unit.example_run import example_config


def test_a_new_run_never_overwrites_one_that_is_there(tmp_path: Path) -> None:
    config = example_config(tmp_path / "runs")
    runs = [RunFolder.create(config) for _ in range(3)]
    assert [run.name for run in runs] == ["example", "example-2", "example-3"]
    assert load_config(runs[1].config_path) == config


def test_resume_takes_the_newest_unfinished_run_else_the_newest(tmp_path: Path) -> None:
    config = example_config(tmp_path)
    first, second, third = (RunFolder.create(config) for _ in range(3))
    assert RunFolder.latest(config.output_dir, "example") == third
    third.write_text("metrics.json", "{}")
    third.write_text("report.html", "")
    assert RunFolder.latest(config.output_dir, "example") == second
    for run in (first, second):
        run.write_text("metrics.json", "{}")
        run.write_text("report.html", "")
    assert RunFolder.latest(config.output_dir, "example") == third
    assert third.finished


def test_newest_is_by_number_not_by_spelling(tmp_path: Path) -> None:
    config = example_config(tmp_path)
    runs = [RunFolder.create(config) for _ in range(10)]
    assert RunFolder.latest(config.output_dir, "example") == runs[-1]


def test_resume_leaves_another_runs_folder_alone(tmp_path: Path) -> None:
    mine = RunFolder.create(example_config(tmp_path))
    RunFolder.create(example_config(tmp_path, name="example-2"))
    (tmp_path / "example-3").mkdir()
    for number, text in ((4, "name: [example"), (5, "example"), (6, "\x00")):
        (tmp_path / f"example-{number}").mkdir()
        (tmp_path / f"example-{number}" / "config.yaml").write_text(text)
    assert RunFolder.latest(str(tmp_path), "example") == mine


def test_nothing_to_resume_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run named example to resume") as caught:
        RunFolder.latest(str(tmp_path / "nowhere"), "example")
    assert "\n" not in str(caught.value)


def test_an_output_dir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"output_dir: .*file/runs cannot be written"):
        RunFolder.create(example_config(tmp_path / "file" / "runs"))


def test_config_in_the_folder_is_resolved(tmp_path: Path) -> None:
    run = RunFolder.create(example_config(tmp_path))
    assert yaml.safe_load(run.read_text("config.yaml"))["train"]["betas"] == [0.9, 0.999]
    assert run.evaluation_path("teacher", "test") == f"{tmp_path}/example/evaluation/teacher-test.parquet"


def test_a_run_folder_may_be_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_SETTLE_S", 0.01)
    config = example_config("fsspec+memory://run-folder-test/runs")
    first, second = RunFolder.create(config), RunFolder.create(config)
    assert (first.path, second.path) == tuple(f"fsspec+memory://run-folder-test/runs/example{number}" for number in ("", "-2"))
    assert storage.list_dir(first.path) == ["config.yaml"]
    second.write_text("metrics.json", "{}")
    second.write_text("report.html", "")
    assert RunFolder.latest(config.output_dir, "example") == first
