"""`python -m raykd.tune` on real trials: ordinary runs in Ray Tune, one page, MLflow's parent and children, kills, resumes."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import ray

from raykd import report
from raykd.config import load_config
from raykd.config.yaml_text import to_yaml
from raykd.errors import UserError
from raykd.tracking.run_folder import RunFolder
from tests.ray.commands import run_here, start


def sweep_file(root: Path, manifest: Path, model: Path, **fields: Any) -> Path:
    tree: dict[str, Any] = {
        "name": "swept",
        "output_dir": str(root),
        "base": {
            "data": {"source": str(manifest), "cache_dir": str(root / "cache")},
            "teacher": {"kind": "cached", "model": str(model)},
            "student": {"decoder_layers": 1, "freeze_encoder": False},
            "train": {"steps": 4, "batch_size": 8, "eval_every": 1},
            "evaluation": {"batch_size": 4, "max_new_tokens": 8, "speed_batch_sizes": [1], "speed_utterances": 2},
            "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "log_model": False, "system_metrics": False},
            "cluster": {"num_workers": 1},
        },
        "search": {"train.lr": [1e-4, 1e-2, 1.0]},
        "sampler": "grid",
        "at_once": 2,
        "keep": 1,
        **fields,
    }
    path = root / "sweep.yaml"
    path.write_text(to_yaml(tree))
    return path


@pytest.fixture(scope="module")
def folder(manifest: Path, lively_dir: Path, ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep of three learning rates, one of them with a layer that is not there, and what it said."""
    root = tmp_path_factory.mktemp("sweep")
    search = {
        "train.lr": [1e-3, 1e-2],
        "objective": [{"recipe": "kd"}, {"recipe": "terms", "terms": [{"kind": "ce", "weight": 1e30}]}],
    }
    path = sweep_file(root, manifest, lively_dir, search=search, register_as="best-student")
    return root / "swept", run_here("tune", path, folder=root)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    return {trial["name"]: trial for trial in json.loads((folder / "sweep.json").read_text())["trials"]}


def test_every_point_is_a_run_and_what_cannot_train_is_marked(folder: tuple[Path, str]) -> None:
    root, said = folder
    found = trials(root)
    assert sorted(found) == ["trial-000", "trial-001", "trial-002", "trial-003"]
    for trial in found.values():
        config = load_config(str(root / trial["run"] / "config.yaml"))
        assert config.train.lr == trial["point"]["train.lr"]
        assert config.cluster.share == 0.5
        broken = trial["point"]["objective"]["recipe"] == "terms"
        assert trial["state"] == ("failed" if broken else "finished")
        assert ("not finite" in trial["reason"]) == broken
    assert "trial-000 finished, dev WER" in said
    assert "(train.lr 0.001, objective" in said
    assert "Take trial-" in said


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
    assert config.train.lr == next(run["point"]["train.lr"] for run in results["runs"] if run["run"] == best)
    assert (config.cluster.share, config.tracking.parent_run, config.output_dir) == (None, None, "runs")
    page = (root / "report.html").read_text()
    assert page.count("<svg") >= 3
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
    assert {name: run.info.status for name, run in children.items()} == {
        name: "FINISHED" if trial["state"] == "finished" else "FAILED" for name, trial in found.items()
    }
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


def test_asha_stops_what_does_badly_and_says_so(manifest: Path, lively_dir: Path, ray_local: None, tmp_path: Path) -> None:
    search = {"train.lr": [1e-5, 1e-4, 1e-3, 10.0]}
    path = sweep_file(tmp_path, manifest, lively_dir, search=search, asha={"grace": 0.25, "reduction": 2}, at_once=1)
    run_here("tune", path, folder=tmp_path)
    found = trials(tmp_path / "swept")
    states = [trial["state"] for trial in found.values()]
    assert len(states) == 4
    assert states.count("stopped") >= 1
    assert states.count("finished") >= 1
    for trial in found.values():
        if trial["state"] == "stopped":
            assert not RunFolder(str(tmp_path / "swept" / trial["run"])).finished
            client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
            run_id = (tmp_path / "swept" / trial["run"] / "mlflow_run_id").read_text()
            assert client.get_run(run_id).info.status == "KILLED"
            assert client.get_run(run_id).data.tags["raykd.state"] == "stopped"


def test_tpe_and_conditions(manifest: Path, lively_dir: Path, ray_local: None, tmp_path: Path) -> None:
    search = {
        "objective": [{"recipe": "kd"}, {"recipe": "ce"}],
        "objective.lambda_kl": {"uniform": [0.1, 1.0], "when": {"objective.recipe": "kd"}},
        "train.lr": {"loguniform": [1e-4, 1e-2]},
    }
    path = sweep_file(tmp_path, manifest, lively_dir, search=search, sampler="tpe", trials=3, fixed={"train.weight_decay": 0.1})
    run_here("tune", path, folder=tmp_path)
    found = trials(tmp_path / "swept")
    assert [trial["state"] for trial in found.values()] == ["finished"] * 3
    for trial in found.values():
        assert ("objective.lambda_kl" in trial["point"]) == (trial["point"]["objective"]["recipe"] == "kd")


def test_pbt_goes_on_from_who_does_well(manifest: Path, lively_dir: Path, ray_local: None, tmp_path: Path) -> None:
    path = sweep_file(
        tmp_path,
        manifest,
        lively_dir,
        search={"train.lr": {"loguniform": [1e-6, 1.0]}},
        sampler="pbt",
        trials=2,
        pbt={"interval": 0.25, "quantile": 0.5, "resample": 0.0},
    )
    run_here("tune", path, folder=tmp_path)
    found = trials(tmp_path / "swept")
    assert [trial["state"] for trial in found.values()] == ["finished"] * 2
    legs = [run for run in (tmp_path / "swept" / "runs").iterdir() if (run / "donor.json").exists()]
    assert legs, "nobody learned from another"
    for leg in legs:
        donor = json.loads((leg / "donor.json").read_text())
        config = load_config(str(leg / "config.yaml"))
        theirs = load_config(f"{donor['run']}/config.yaml")
        assert config.train.lr != theirs.train.lr
        records = [json.loads(line) for line in (leg / "history.jsonl").read_text().splitlines()]
        steps = sorted({record["step"] for record in records if record["kind"] == "train"})
        assert steps[0] == 1
        assert steps == list(range(1, len(steps) + 1)), "it has the whole of the donor's training"


@pytest.mark.timeout(500)
def test_a_killed_trial_and_a_killed_driver(manifest: Path, lively_dir: Path, tmp_path: Path) -> None:
    """A trial's process is killed: it is tried again. The driver is killed: --resume keeps what has ended."""
    path = sweep_file(tmp_path, manifest, lively_dir, search={"train.lr": [1e-4, 1e-3, 1e-2]}, at_once=1)
    with pytest.raises(UserError, match="has no sweep named swept to resume"):
        run_here("tune", path, "--resume", folder=tmp_path)
    driver = start("tune", path, folder=tmp_path)
    swept = tmp_path / "swept"
    wait_for(driver, lambda: (swept / "runs" / "trial-000" / "history.jsonl").exists())
    kill_trial(driver.pid)
    wait_for(driver, lambda: trial_state(swept, "trial-000") == "finished")
    wait_for(driver, lambda: (swept / "runs" / "trial-001" / "history.jsonl").exists())
    kept = (swept / "runs" / "trial-000" / "history.jsonl").read_text()
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    again = start("tune", path, "--resume", folder=tmp_path)
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0, said
    assert [trial["state"] for trial in trials(swept).values()] == ["finished"] * 3
    assert (swept / "runs" / "trial-000" / "history.jsonl").read_text() == kept
    assert not (swept / "runs" / "trial-001-2").exists()
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
        assert driver.poll() is None, driver.stdout.read()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


def kill_trial(driver: int) -> None:
    """Kill the process in which Ray Tune runs the trial."""
    for process in psutil.Process(driver).children(recursive=True):
        if "ImplicitFunc" in " ".join(process.cmdline()):
            process.kill()
            return
    raise AssertionError("no trial is running")
