"""`python -m raykd.tune` on real trials: ordinary runs in Ray Tune, one page, MLflow's parent and children, kills, resumes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
import ray

from raykd import report
from raykd.config import load_config
from raykd.config.yaml_text import to_yaml
from raykd.distillation import distil
from raykd.errors import UserError
from raykd.tracking.history import read_history
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.tuning.trial import _shared, _take_over
from tests.ray.commands import run_here, start


def sweep_file(root: Path, manifest: Path, model: Path, eval_every: int = 1, taught: bool = True, **fields: Any) -> Path:
    teacher = {
        "teacher": {"kind": "cached", "model": str(model), "dtype": "float32"},
        "student": {"decoder_layers": 1, "freeze_encoder": False},
    }
    alone = {"student": {"init": str(model), "freeze_encoder": False}}
    tree: dict[str, Any] = {
        "name": "swept",
        "output_dir": str(root),
        "base": {
            **(teacher if taught else alone),
            "data": {"source": str(manifest), "cache_dir": str(root / "cache")},
            # Which trial is better hangs on little: the type must not be the machine's choice.
            "train": {"steps": 4, "batch_size": 8, "eval_every": eval_every, "checkpoint_every": 1, "precision": "float32"},
            "evaluation": {"batch_size": 4, "max_new_tokens": 8, "speed_batch_sizes": [1], "speed_utterances": 2},
            "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "log_model": False, "system_metrics": False},
            "cluster": {"num_workers": 1},
        },
        "search": {"train.lr": [1e-4, 1e-2, 1.0]},
        "sampler": "grid",
        "at_once": 1,
        "keep": 1,
        **fields,
    }
    path = root / "sweep.yaml"
    path.write_text(to_yaml(tree))
    return path


@pytest.fixture(scope="module")
def folder(manifest: Path, lively_dir: Path, ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep of three trials, and what it said: one trains, one with an absurd learning rate, one whose loss is not finite."""
    root = tmp_path_factory.mktemp("sweep")
    search = {
        "objective": [{"recipe": "kd"}, {"recipe": "terms", "terms": [{"kind": "ce", "weight": 1e30}]}],
        "train.lr": {"choice": [1e-3, 10.0], "when": {"objective.recipe": "kd"}},
    }
    asha = {"grace": 0.25, "reduction": 2}
    path = sweep_file(root, manifest, lively_dir, search=search, asha=asha, register_as="best-student")
    return root / "swept", run_here("tune", path, folder=root)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    return {trial["name"]: trial for trial in json.loads((folder / "sweep.json").read_text())["trials"]}


def test_every_point_is_a_run_and_how_each_ended_is_told(folder: tuple[Path, str]) -> None:
    root, said = folder
    found = trials(root)
    assert [trial["state"] for trial in found.values()] == ["finished", "stopped", "failed"]
    for trial in found.values():
        config = load_config(str(root / trial["run"] / "config.yaml"))
        assert config.cluster.share == 1.0
        assert config.objective.recipe == trial["point"]["objective"]["recipe"]
        assert ("train.lr" in trial["point"]) == (config.objective.recipe == "kd")
        assert config.train.lr == trial["point"].get("train.lr", 1e-4)
        run = RunFolder(str(root / trial["run"]))
        assert run.finished == (trial["state"] == "finished")
        assert "training: started" in (root / "logs" / f"{trial['name']}.log").read_text()
    assert "not finite" in found["trial-002"]["reason"]
    assert "trial-000 finished, dev WER" in said
    assert "trial-001 stopped at step" in said
    assert "trial-002 failed" in said
    assert "Take trial-000 (objective" in said


def test_the_teacher_worked_once(folder: tuple[Path, str]) -> None:
    root, _ = folder
    caches = list((root.parent / "cache" / "teacher_caches").glob("*/topk"))
    assert len(caches) == 1
    assert len(list((root.parent / "cache" / "evaluations").iterdir())) == 1
    assert len(list((root.parent / "cache" / "corpora").iterdir())) == 1


def test_only_the_best_keep_their_weights_and_the_best_config_runs(folder: tuple[Path, str]) -> None:
    root, _ = folder
    results = json.loads((root / "results.json").read_text())
    best = results["best"]
    having = {run.name for run in (root / "runs").iterdir() if (run / "student").exists()}
    assert having == {best}
    assert {run.name for run in (root / "runs").iterdir() if (run / "checkpoints").exists()} == {best}
    config = load_config(str(root / "best.yaml"))
    assert (best, config.train.lr) == ("trial-000", 1e-3)
    assert (config.cluster.share, config.tracking.parent_run, config.output_dir) == (None, None, "runs")
    assert config.tracking.log_model, "what a sweep leaves out of its trials"
    page = (root / "report.html").read_text()
    assert page.count("<svg") >= 2
    assert "came to no end" in page


def test_mlflow_has_a_parent_children_data_and_the_registered_best(folder: tuple[Path, str]) -> None:
    root, _ = folder
    client = mlflow.MlflowClient(f"sqlite:///{root.parent}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "raykd"]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("raykd.kind") == "sweep"]
    children = {run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    found = trials(root)
    assert set(children) == set(found)
    ended = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    assert {name: run.info.status for name, run in children.items()} == {
        name: ended[trial["state"]] for name, trial in found.items()
    }
    assert children["trial-001"].data.tags["raykd.state"] == "stopped"
    best = json.loads((root / "results.json").read_text())["best"]
    assert [name for name, run in children.items() if run.data.tags.get("raykd.best") == "true"] == [best]
    (version,) = client.search_model_versions("name='best-student'")
    assert version.run_id == children[best].info.run_id
    inputs = children[best].inputs
    assert inputs is not None
    (data,) = inputs.dataset_inputs
    assert data.dataset.digest == next((root.parent / "cache" / "corpora").iterdir()).name
    assert str(root.parent.name) in data.dataset.source or "manifest" in data.dataset.source
    assert parent.data.metrics["best/dev_wer"] >= 0
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"report.html", "best.yaml"}


def test_the_report_is_made_again_from_the_folder(folder: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = folder
    report.main([str(root), "--out", str(tmp_path)])
    before, again = (json.loads((place / "results.json").read_text()) for place in (root, tmp_path))
    assert again == before


def test_nothing_is_left_running(folder: tuple[Path, str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        free = ray.available_resources()
        if free.get("CPU") == ray.cluster_resources()["CPU"]:
            return
        time.sleep(1)
    raise AssertionError(f"CPUs are still held: {free}")


def test_a_trial_goes_on_from_anothers_training_with_its_own_values(folder: tuple[Path, str]) -> None:
    """What population based training does: weights, moments and history are the donor's, the learning rate is not."""
    root, _ = folder
    donor = load_config(str(root / "runs" / "trial-000" / "config.yaml"))
    tracking = donor.tracking.model_copy(update={"mlflow": False})
    train = donor.train.model_copy(update={"lr": 0.5})
    config = donor.model_copy(update={"name": "leg", "train": train, "tracking": tracking})
    given = _shared(donor, 3)
    assert given is not None
    _take_over(config, given.name)
    with Progress(quiet=True) as progress:
        run = distil(config, True, progress)
    before, after = (read_history(str(root / "runs" / name / "history.jsonl")).train for name in ("trial-000", "leg"))
    assert [record["step"] for record in after] == [1, 2, 3, 4]
    assert after[:3] == before[:3]
    assert after[3]["loss"] == pytest.approx(before[3]["loss"], rel=1e-5), "of the weights before the step"
    assert after[3]["lr"] == pytest.approx(500 * before[3]["lr"])
    assert json.loads(run.read_text("donor.json")) == {"run": str(root / "runs" / "trial-000"), "step": 3}
    shutil.rmtree(run.path)


@pytest.mark.timeout(300)
def test_trials_at_once_report_to_one_server(manifest: Path, lively_dir: Path, ray_local: None, tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as uri:
        fixed = {"objective": "ce", "tracking.uri": uri, "tracking.log_every": 1}
        search = {"train.lr": [1e-3, 1e-2]}
        path = sweep_file(tmp_path, manifest, lively_dir, eval_every=2, taught=False, search=search, at_once=2, fixed=fixed)
        run_here("tune", path, folder=tmp_path)
        swept = tmp_path / "swept"
        (first, second) = (load_config(str(swept / trial["run"] / "config.yaml")) for trial in trials(swept).values())
        assert (first.cluster.share, second.cluster.share) == (0.5, 0.5)
        client = mlflow.MlflowClient(uri)
        (experiment,) = [one for one in client.search_experiments() if one.name == "raykd"]
        runs = {run.info.run_name: run.info for run in client.search_runs([experiment.experiment_id])}
        assert set(runs) == {"swept", "trial-000", "trial-001"}
        for name in ("trial-000", "trial-001"):
            kept = read_history(str(swept / "runs" / name / "history.jsonl")).train
            logged = {one.step: one.value for one in client.get_metric_history(runs[name].run_id, "train/loss")}
            assert logged == {record["step"]: pytest.approx(record["loss"]) for record in kept}
            assert len(client.get_metric_history(runs[name].run_id, "eval/wer")) == 2
        began, ended = (max(run.start_time for run in runs.values()), min(run.end_time for run in runs.values()))
        assert began < ended, "all at the same time"


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A real one on sqlite; its address."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(server, lambda: answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.timeout(500)
def test_a_killed_trial_and_a_killed_driver(manifest: Path, lively_dir: Path, ray_local: None, tmp_path: Path) -> None:
    """A trial's process is killed: it is tried again. The driver is killed: --resume keeps what has ended. With Optuna."""
    search = {
        "objective": [{"recipe": "ce"}, {"recipe": "terms", "terms": [{"kind": "ce"}]}],
        "objective.label_smoothing": {"uniform": [0.0, 0.2], "when": {"objective.recipe": "ce"}},
        "train.lr": {"loguniform": [1e-4, 1e-2]},
    }
    path = sweep_file(tmp_path, manifest, lively_dir, eval_every=4, taught=False, search=search, sampler="tpe", trials=2)
    with pytest.raises(UserError, match="has no sweep named swept to resume"):
        run_here("tune", path, "--resume", folder=tmp_path)
    driver = start("tune", path, folder=tmp_path)
    swept = tmp_path / "swept"
    wait_for(driver, lambda: (swept / "runs" / "trial-000" / "history.jsonl").exists())
    owner = json.loads((swept / "runs" / "trial-000" / "lease.json").read_text())
    assert owner["pid"] != driver.pid
    os.kill(owner["pid"], signal.SIGKILL)
    wait_for(driver, lambda: trial_state(swept, "trial-000") == "finished")
    wait_for(driver, lambda: (swept / "runs" / "trial-001" / "config.yaml").exists())
    kept = (swept / "runs" / "trial-000" / "history.jsonl").read_text()
    point = trials(swept)["trial-001"]["point"]
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    run_here("tune", path, "--resume", folder=tmp_path)
    found = trials(swept)
    assert [trial["state"] for trial in found.values()] == ["finished"] * 2
    assert found["trial-001"]["point"] == point
    for trial in found.values():
        assert ("objective.label_smoothing" in trial["point"]) == (trial["point"]["objective"]["recipe"] == "ce")
    assert (swept / "runs" / "trial-000" / "history.jsonl").read_text() == kept
    assert sorted(run.name for run in (swept / "runs").iterdir()) == ["trial-000", "trial-001"]
    with pytest.raises(UserError, match="trials: differs from the sweep to resume"):
        run_here("tune", path, "--resume", "trials=9", folder=tmp_path)


def trial_state(swept: Path, name: str) -> str | None:
    try:
        return str(trials(swept)[name]["state"])
    except (OSError, ValueError, KeyError):
        return None


def wait_for(driver: Any, condition: Any, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.stdout.read() if driver.stdout else "ended"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)
