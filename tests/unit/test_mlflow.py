import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest

from raykd import runs
from raykd.config import Config
from raykd.tracking import mlflow as tracking
from raykd.tracking.history import read_json_lines
from raykd.tracking.mlflow import UNSENT, MlflowTracker, send_waiting, tracking_uri, ui_command
from raykd.tracking.mlflow_values import MAX_PARAM, flat_params, points_of_metrics, points_of_record
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.training.plan import TrainingPlan
from tests.unit.example_run import eval_record, example_config, example_metrics, make_run, train_record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite store; making its tables takes seconds, so it is made once and copied."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def own_store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of its own for each test; artifacts land in tmp_path/mlruns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def config_with(tmp_path: Path, **changes: Any) -> Config:
    changes.setdefault("tracking", {"system_metrics": False})
    return example_config(tmp_path / "runs", **changes)


def history_of(run_id: str, key: str, uri: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in mlflow.MlflowClient(uri).get_metric_history(run_id, key)]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute in vain"
        time.sleep(0.02)


def test_a_run_is_tracked_whole(tmp_path: Path, own_store: str) -> None:
    config = config_with(tmp_path)
    run = make_run(config)
    lines: list[str] = []
    tracker = MlflowTracker(config, run, say=lines.append)
    for step in (1, 2):
        tracker.record(train_record(step, loss=3.0 / step))
    tracker.record(eval_record(2, 0.5))
    tracker.log_points(points_of_metrics(example_metrics()))
    tracker.store_files()
    tracker.close()
    stored = mlflow.MlflowClient(own_store).get_run(run.read_text("mlflow_run_id"))
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "example"
    assert stored.data.params["train.lr"] == "0.0001"
    assert stored.data.params["data.source.0.kind"] == "demo"
    assert {"raykd.version", "mlflow.user"} <= set(stored.data.tags)
    assert history_of(stored.info.run_id, "train/loss", own_store) == [(1, 3.0), (2, 1.5)]
    assert {"train/ce", "train/kl", "train/weight/kl", "train/lr", "train/grad_norm", "train/utterances_per_s"} <= set(
        stored.data.metrics
    )
    assert stored.data.metrics["eval/cs/wer"] == 0.5
    assert stored.data.metrics["test/student/cs/wer"] == example_metrics().student.per_language["cs"].wer
    assert stored.data.metrics["speed/batch_1/speedup"] == 2.5
    names = {item.path for item in mlflow.MlflowClient(own_store).list_artifacts(stored.info.run_id)}
    assert names == {"config.yaml", "metrics.json", "history.jsonl"}
    assert lines == []


def test_resume_goes_on_in_the_same_run_even_with_other_parameters(tmp_path: Path, own_store: str) -> None:
    config = config_with(tmp_path)
    run = RunFolder.create(config)
    first = MlflowTracker(config, run)
    first.record(train_record(1))
    first.close("KILLED")
    changed = config_with(tmp_path, cluster={"num_workers": 3})
    second = MlflowTracker(changed, run)
    second.record(train_record(2))
    second.close()
    assert second.run_id == first.run_id
    stored = mlflow.MlflowClient(own_store).get_run(str(first.run_id))
    assert stored.info.status == "FINISHED"
    assert stored.data.params["cluster.num_workers"] == "null"
    assert stored.data.tags["resumed.cluster.num_workers"] == "3"
    assert [step for step, _ in history_of(stored.info.run_id, "train/loss", own_store)] == [1, 2]


def test_children_hang_under_their_parent(tmp_path: Path, own_store: str) -> None:
    config = config_with(tmp_path)
    parent = MlflowTracker(config, RunFolder.create(config))
    parent.close()
    child = MlflowTracker(
        config.model_copy(update={"tracking": config.tracking.model_copy(update={"parent_run": parent.run_id})}),
        RunFolder.create(config),
    )
    child.close()
    stored_parent = mlflow.MlflowClient(own_store).get_parent_run(str(child.run_id))
    assert stored_parent is not None
    assert stored_parent.info.run_id == parent.run_id


def test_system_metrics_are_sampled(tmp_path: Path, own_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SYSTEM_METRICS_S", 0.05)
    config = config_with(tmp_path, tracking={"system_metrics": True})
    tracker = MlflowTracker(config, RunFolder.create(config))
    client = mlflow.MlflowClient(own_store)
    wait_for(lambda: tracker.run_id)
    wait_for(lambda: client.get_metric_history(str(tracker.run_id), "system/cpu_utilization_percentage"))
    tracker.close()


def test_an_unreachable_server_costs_one_line_and_no_metric(tmp_path: Path, own_store: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
    config = config_with(tmp_path, tracking={"uri": uri, "system_metrics": False})
    run = RunFolder.create(config)
    lines: list[str] = []
    tracker = MlflowTracker(config, run, say=lines.append)
    for step in range(1, 6):
        tracker.record(train_record(step))
    tracker.store_files()
    tracker.close()
    assert len([line for line in lines if "does not take our metrics" in line]) == 1
    assert f"waits in {run.path}; --resume sends it" in lines[-1]
    losses = [record for record in read_json_lines(run.at("mlflow_spool.jsonl")) if record["key"] == "train/loss"]
    assert [record["step"] for record in losses] == [1, 2, 3, 4, 5]

    resumed = MlflowTracker(config_with(tmp_path), run, say=lines.append)
    resumed.record(train_record(6))
    resumed.close()
    assert [step for step, _ in history_of(str(resumed.run_id), "train/loss", own_store)] == [1, 2, 3, 4, 5, 6]
    assert not run.has("mlflow_spool.jsonl")
    assert not run.has(UNSENT)
    assert len(lines) == 2


def test_metrics_are_sent_when_the_store_answers_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "RETRY_S", 0.0)
    blocked = tmp_path / "store"
    blocked.write_text("a file where the store's folder should be")
    uri = f"sqlite:///{blocked}/mlflow.db"
    config = config_with(tmp_path, tracking={"uri": uri, "system_metrics": False})
    run = RunFolder.create(config)
    lines: list[str] = []
    tracker = MlflowTracker(config, run, say=lines.append)
    tracker.record(train_record(1))
    wait_for(lambda: lines)
    blocked.unlink()
    wait_for(lambda: len(lines) == 2)
    tracker.record(train_record(2))
    tracker.close()
    assert "does not take our metrics" in lines[0]
    assert lines[1:] == [f"MLflow: {uri} answers; what waited is sent"]
    assert [step for step, _ in history_of(str(tracker.run_id), "train/loss", uri)] == [1, 2]


def test_files_that_wait_are_sent_for_a_finished_run(tmp_path: Path, own_store: str) -> None:
    (tmp_path / "blocked").write_text("")
    broken = {"uri": f"sqlite:///{tmp_path}/blocked/mlflow.db", "system_metrics": False}
    config = config_with(tmp_path, tracking=broken)
    run = make_run(config)
    lines: list[str] = []
    tracker = MlflowTracker(config, run, say=lines.append)
    tracker.store_files()
    tracker.close()
    assert "--resume sends it" in lines[-1]
    lines.clear()
    send_waiting(config_with(tmp_path, tracking={"log_model": False, "system_metrics": False}), run, lines.append)
    run_id = run.read_text("mlflow_run_id")
    assert {item.path for item in mlflow.MlflowClient(own_store).list_artifacts(run_id)} >= {"config.yaml", "metrics.json"}
    assert not run.has("mlflow_spool.jsonl")
    assert not run.has(UNSENT)
    assert lines == []


def test_results_arrive_after_a_kill_while_they_were_sent(
    tmp_path: Path, own_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run counted as finished, nothing waited, and so nothing was ever sent."""
    monkeypatch.setattr(runs, "train_on_cluster", lambda *_: None)
    monkeypatch.setattr(runs, "CheckpointSelection", lambda *_, **__: SimpleNamespace(best=lambda: "best"))
    config = config_with(tmp_path)
    run = make_run(config)
    training = runs.TrainingRun(config, run, Progress(quiet=True))
    job: Any = SimpleNamespace(method=SimpleNamespace(settled=0.0))
    none: Any = None
    training.train(job, none, TrainingPlan(1, 1, 1, None), none, score="wer", banner=none)
    run.write_text("report.html", "")
    assert run.finished
    killed = training.tracker
    assert killed is not None
    killed.close("KILLED")
    assert run.has(UNSENT)
    send_waiting(config, run)
    stored = mlflow.MlflowClient(own_store).get_run(str(killed.run_id))
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics["test/student/cs/wer"] == example_metrics().student.per_language["cs"].wer
    names = {item.path for item in mlflow.MlflowClient(own_store).list_artifacts(str(killed.run_id))}
    assert names == {"config.yaml", "metrics.json", "report.html", "history.jsonl"}
    assert not run.has(UNSENT)


def test_a_student_that_cannot_be_logged_is_said_and_the_run_ends_well(tmp_path: Path, own_store: str) -> None:
    config = config_with(tmp_path)
    lines: list[str] = []
    tracker = MlflowTracker(config, RunFolder.create(config), say=lines.append)
    tracker.log_student()
    tracker.close()
    assert len(lines) == 1
    assert lines[0].startswith("MLflow: ")
    assert mlflow.MlflowClient(own_store).get_run(str(tracker.run_id)).info.status == "FINISHED"


def test_the_logged_student_loads_and_transcribes(
    tmp_path: Path, tiny_whisper_dir: Path, own_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(tmp_path)
    run = RunFolder.create(config)
    shutil.copytree(tiny_whisper_dir, run.student_dir)
    lines: list[str] = []
    tracker = MlflowTracker(config, run, say=lines.append)
    tracker.log_student()
    tracker.close()
    assert lines == []
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own_store)
    recognise = mlflow.transformers.load_model(f"runs:/{tracker.run_id}/student")
    noise_S = np.random.default_rng(0).normal(size=32_000).astype(np.float32)
    heard = recognise({"raw": noise_S, "sampling_rate": 16_000}, generate_kwargs={"language": "cs", "max_new_tokens": 8})
    assert isinstance(heard["text"], str)
    assert heard["text"]


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_with(tmp_path)
    assert tracking_uri(config) == f"sqlite:///{tmp_path}/mlflow.db"
    assert ui_command(tracking_uri(config)) == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    assert ui_command(tracking_uri(config)) == "http://mlflow.example:5000"


def test_parameters_are_flat_and_within_limits() -> None:
    params = flat_params({"a": {"b": 1, "c": [1, 2]}, "d": [{"e": None}, {"e": "x"}], "long": "y" * 10_000})
    assert params == {"a.b": "1", "a.c": "[1, 2]", "d.0.e": "null", "d.1.e": "x", "long": params["long"]}
    assert len(params["long"]) == MAX_PARAM


def test_numbers_that_are_none_or_not_finite_are_not_sent() -> None:
    keys = {point.key for point in points_of_record(train_record(1, loss=float("nan"), grad_norm=None))}
    assert "train/lr" in keys
    assert not {"train/loss", "train/grad_norm"} & keys
    assert points_of_record({"kind": "event", "step": 1}) == []


def test_metric_names_are_ones_that_mlflow_takes() -> None:
    keys = {point.key for point in points_of_record(train_record(1, terms={"kl@2 (easy)": 1.0}, weights={}))}
    assert "train/kl_2 _easy_" in keys


def test_final_numbers_belong_to_the_last_step() -> None:
    assert {point.step for point in points_of_metrics(example_metrics())} == {40}


def test_what_was_asked_for_is_named_beside_wer() -> None:
    record = eval_record(20, 0.1, loss=1.5, invalid_word_share=0.25, teacher_forced_wer=0.5, teacher_forced_cer=0.1)
    points = {point.key: point.value for point in points_of_record(record)}
    names = ("loss", "invalid_word_share", "teacher_forced_wer", "teacher_forced_cer")
    assert {name: points[f"eval/{name}"] for name in names} == {name: record[name] for name in names}
    assert points["eval/cs/invalid_word_share"] == 0.25
    assert not {"eval/step", "eval/kind", "eval/split"} & set(points)
    on_test = {point.key for point in points_of_record(eval_record(20, 0.1, split="test_ood", loss=1.5))}
    assert {"eval/test_ood/loss", "eval/test_ood/wer"} <= on_test
    final = {point.key: point.value for point in points_of_metrics(example_metrics(measured=True))}
    assert (final["test/student/loss"], final["test/teacher/loss"]) == (1.5, 0.75)
    assert final["test_ood/student/pl/invalid_word_share"] == pytest.approx(2 / 49)
    assert "test/student/loss" not in {point.key for point in points_of_metrics(example_metrics())}


def test_factors_taken_while_scoring_are_not_sent_side_by_side() -> None:
    assert not [point.key for point in points_of_metrics(example_metrics()) if point.key.endswith("/rtf")]
    assert "test/student/rtf" in {point.key for point in points_of_metrics(example_metrics(teacher=False, speed=False))}
