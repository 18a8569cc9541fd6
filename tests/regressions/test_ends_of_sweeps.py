"""What a sweep keeps, ranks and tells at its end: points of several seeds, trials that ended early, were killed or left no
folder; and what schedulers and GPUs are told of trials.
"""

import json
import queue
import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.tune.search.variant_generator import generate_variants
from rich.console import Console

from raykd import report, tune
from raykd.config.training import ClusterConfig
from raykd.config.yaml_text import to_yaml
from raykd.errors import UserError
from raykd.tracking.history import HistoryWriter
from raykd.tracking.run_folder import RunFolder
from raykd.training.cluster import plan_resources
from raykd.tuning.board import Board
from raykd.tuning.entries import entries_of_sweep, ranked
from raykd.tuning.page import Findings, in_words, ranking
from raykd.tuning.record import Record, State, Trial
from raykd.tuning.sweep import _listed
from raykd.tuning.trial import TrialProgress, tuned_of
from raykd.tuning.watch import Seen
from tests.unit.example_run import eval_record, example_config, make_run, train_record
from tests.unit.test_tuning import BASE, entry, space


def test_a_point_of_which_one_seed_finished_is_before_those_of_which_none_did() -> None:
    """Its other seeds were stopped late and badly, the other point's all early: no trial was said to have come to its end."""
    entries = [
        *(entry(f"y{seed}", [0.15], "stopped", seed, lr=1) for seed in range(3)),
        entry("x0", [0.4, 0.05], seed=0, lr=2),
        *(entry(f"x{seed}", [0.5, 0.4], "stopped", seed, lr=2) for seed in (1, 2)),
    ]
    findings = Findings.of("s", entries)
    assert findings.best is not None
    assert findings.best.name == "x0"
    assert "20.21 points standard deviation over 3 seeds, of which 2 did not come to their end" in in_words(findings)[0]
    assert [row[0] for row in ranking(findings).rows] == ["x0", "y0"]


def test_a_seed_that_was_stopped_counts_and_one_that_failed_puts_its_point_behind() -> None:
    entries = [
        entry("a0", [0.12], lr=1),
        entry("a1", [0.12], seed=1, lr=1),
        entry("b0", [0.05], lr=2),
        entry("b1", [0.09], "stopped", 1, lr=2),
        entry("c0", [0.01], lr=3),
        entry("c1", [], "failed", 1, lr=3),
    ]
    assert [group.best.name for group in ranked(entries)] == ["b0", "a0", "c0"]


def scored_run(folder: str, name: str, wer: float) -> RunFolder:
    run = RunFolder.create(example_config(folder, name=name))
    HistoryWriter(run.history_path).record(eval_record(40, wer))
    run.write_text("student/model.safetensors", "")
    return run


def test_weights_stay_until_all_seeds_of_a_point_have_ended_and_then_those_of_the_best_points(tmp_path: Path) -> None:
    """The best single trial was kept, and the best point's, which the report recommends, were gone."""
    swept = space({"train.lr": [1, 2]}, seeds=[0, 1], output_dir=str(tmp_path))
    record = Record(str(tmp_path / "sweep"))
    seen = Seen(swept, record, Board(4, Console(quiet=True)), keep=1)
    wers = {"a0": 0.10, "b0": 0.09, "a1": 0.10, "b1": 0.13}
    left = []
    for name, wer in wers.items():
        record.trials[name] = Trial(name, {"train.lr": 1 if name[0] == "a" else 2}, int(name[1]))
        run = scored_run(swept.runs_folder, name, wer)
        run.write_text("metrics.json", json.dumps({"student": {"wer": wer}, "speed": {}}))
        seen.ends(name, "finished")
        left.append({one for one in wers if Path(swept.runs_folder, one, "student").exists()})
    assert left == [{"a0"}, {"a0", "b0"}, {"a0", "b0", "a1"}, {"a0", "a1"}]
    best = Findings.of("s", entries_of_sweep(record)).best
    assert best is not None
    assert best.name in left[-1]


def test_a_point_has_all_of_its_seeds_before_the_next() -> None:
    points = [{"train.lr": 0}, {"train.lr": 1}]
    for seeds in ((0, 1), (7,)):
        tuned = [tuned_of(one["config"]) for _, one in generate_variants({"config": _listed(points, seeds)})]
        assert tuned == [{"coded": point, "seed": seed} for point in points for seed in seeds]


def test_the_last_dev_score_is_not_reported_before_the_trial_has_ended() -> None:
    """Where evaluations and exchanges are not equally far apart it made population based training replace a finished trial."""
    progress = TrialProgress(None, threading.Event())
    progress.reports = queue.SimpleQueue()
    progress.phase("training", total=40)
    for step in (20, 40):
        progress.record(eval_record(step, 0.5))
    found = progress.reports.get()
    assert found is not None
    assert (found[0]["step"], found[0]["percent"]) == (20, 50.0)
    assert progress.reports.empty()


@pytest.mark.parametrize(
    ("gpus", "trials", "share"),
    [(2, 3, 0.5), (1, 3, 1 / 3), (2, 2, 1.0), (2, 4, 0.5), (8, 5, 1.0), (4, 5, 0.5), (1, 49, 1 / 49)],
)
def test_all_trials_fit_on_the_gpus_at_once(gpus: int, trials: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": float(gpus)})
    plan = plan_resources(ClusterConfig(share=1 / trials))
    assert plan.workers == 1
    assert plan.gpus_per_worker + plan.evaluation_gpus == pytest.approx(share, abs=2e-4)
    assert int(1.001 / (plan.gpus_per_worker + plan.evaluation_gpus)) * gpus >= trials


@pytest.mark.parametrize("key", ["at_once", "retries"])
def test_what_ray_tune_keeps_is_refused_when_a_sweep_goes_on(key: str, tmp_path: Path) -> None:
    """It was taken, and did half of what it says."""
    path, tree = tmp_path / "s.yaml", {"base": BASE, "search": {"train.lr": [1e-3, 1e-4]}, "output_dir": str(tmp_path)}
    path.write_text(to_yaml(tree))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.yaml").write_text(to_yaml(tree))
    with pytest.raises(UserError, match=f"{key}: differs from the sweep to resume"):
        tune.main(["--config", str(path), "--resume", f"{key}=1"])


def test_a_trial_without_a_folder_does_not_stop_a_report_of_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, folders = Record(str(tmp_path / "swept")), [str(tmp_path / "swept")]
    states: list[tuple[str, State]] = [("one", "finished"), ("two", "failed")]
    for name, state in states:
        run = make_run(example_config(tmp_path / "swept" / "runs", name=name))
        record.trials[name] = Trial(name, {}, 0, state, run=run.path)
    Path(record.trials["two"].run, "config.yaml").unlink()
    record.write()
    (tmp_path / "swept" / "sweep.yaml").write_text("")
    folders.append(make_run(example_config(tmp_path, name="alone")).path)
    found: list[Findings] = []
    monkeypatch.setattr(report, "write_findings", lambda findings, *_: found.append(findings))
    report.main(folders)
    assert [one.name for one in found[0].entries] == ["alone", "one"]


def test_a_folder_that_is_gone_is_not_noted(tmp_path: Path) -> None:
    swept = space({"train.lr": [1, 2]}, output_dir=str(tmp_path))
    record = Record(str(tmp_path / "sweep"), {"t": Trial("t", {}, 0, "running", run=str(tmp_path / "gone"))})
    Seen(swept, record, Board(1, Console(quiet=True)), keep=1).ends("t", "failed", "no layer")
    assert record.trials["t"].run == ""


def test_the_time_of_a_trial_before_its_sweep_was_killed_counts(tmp_path: Path) -> None:
    run = RunFolder.create(example_config(tmp_path / "runs", name="t"))
    history = HistoryWriter(run.history_path)
    for step in (1, 2, 3):
        history.record(train_record(step, seconds=5.0))
    history.flush()
    running: dict[str, Any] = {"state": "running", "began": 1.0, "run": run.path}
    Record(str(tmp_path), {"t": Trial("t", {}, 0, **running)}).write()
    for _ in range(2):
        record = Record.read(str(tmp_path))
        assert record.trials["t"].seconds == 15.0, "also when it is killed again before the next step"
        record.trials["t"].begins()
        record.write()
