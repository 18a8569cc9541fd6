"""A torn line of history once deleted every checkpoint on --resume; a damaged newest checkpoint was fatal although older ones
lay beside it, and a flipped bit was not seen at all. Checkpoints that workers wrote while the run was being resumed, their
driver dead, were never scored, so that there was no best one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raykd import runs
from raykd.errors import UserError
from raykd.runs import TrainingRun
from raykd.tracking.history import read_history
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.training.checkpoint import list_checkpoints, newest_good, path_of, step_of
from raykd.training.loop import Record
from raykd.training.plan import TrainingPlan
from tests.jobs import MakeJob
from tests.training.test_training import assert_same_parameters, losses
from tests.training.workers import final_parameters, train_in_processes
from tests.unit.test_checkpoint import write
from tests.unit.test_runs import config


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    """A run of 10 steps with checkpoints of steps 2, 4 and 6."""
    of = config(output_dir=str(tmp_path))
    made = TrainingRun(of, RunFolder.create(of), Progress(quiet=True))
    for step in (2, 4, 6):
        write(Path(made.run.checkpoints_dir), step)
    lines = [json.dumps({"kind": "train", "step": step, "loss": 1.0, "time": 0.0}) for step in range(1, 7)]
    Path(made.run.history_path).write_text("\n".join(lines) + "\n", "utf-8")
    return made


def test_a_checkpoint_stands_for_itself_whatever_the_history_lost(run: TrainingRun) -> None:
    before = list_checkpoints(run.run.checkpoints_dir)
    history = Path(run.run.history_path)
    lines = history.read_text("utf-8").splitlines()
    history.write_text("\n".join([lines[0], lines[1][:9], *lines[3:]]) + "\n", "utf-8")
    run._on_record({"kind": "started", "step": 6})
    assert list_checkpoints(run.run.checkpoints_dir) == before
    run.history.flush()
    assert "lacks 2 of the first 6 steps, such as 2" in history.read_text("utf-8")


def test_no_history_at_all(run: TrainingRun) -> None:
    Path(run.run.history_path).unlink()
    run._on_record({"kind": "started", "step": 6})
    run.history.flush()
    assert "lacks 6 of the first 6 steps, such as 1" in Path(run.run.history_path).read_text("utf-8")


def test_checkpoints_of_workers_that_outlived_their_driver_are_scored(
    run: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def workers(job: Any, resources: Any, storage_path: str, on_record: Callable[[Record], None]) -> None:
        for step in (8, 10):  # the old ones write, while new ones start
            write(Path(run.run.checkpoints_dir), step)
        on_record({"kind": "started", "step": 10})

    monkeypatch.setattr(runs, "train_on_cluster", workers)
    job: Any = SimpleNamespace(method=SimpleNamespace(settled=0))
    plan = TrainingPlan(steps=10, steps_per_epoch=5, eval_every=4, checkpoint_every=2)
    wer = {4: 0.5, 8: 0.3, 10: 0.4}
    nothing: Any = None
    best = run.train(job, nothing, plan, lambda path: {"wer": wer[step_of(path)]}, "wer", lambda record: "")
    assert best == path_of(run.run.checkpoints_dir, 8)
    history = read_history(run.run.history_path)
    assert {record["step"]: record["wer"] for record in history.eval} == wer
    assert "lacks 4 of the first 10 steps, such as 7" in history.events[-1]["text"]


@pytest.mark.parametrize("file", ["trainable.safetensors", "optimizer.safetensors", "parts.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "gone", "empty"])
def test_the_checkpoint_before_a_damaged_one_is_taken(run: TrainingRun, file: str, harm: str) -> None:
    hurt = Path(path_of(run.run.checkpoints_dir, 6)) / file
    data = bytearray(hurt.read_bytes())
    if harm == "flipped":
        data[-1 if file != "state.json" else 0] ^= 1
    damaged = {"cut": bytes(data[: len(data) // 2]), "flipped": bytes(data), "empty": b""}
    hurt.unlink() if harm == "gone" else hurt.write_bytes(damaged[harm])
    said: list[str] = []
    assert newest_good(run.run.checkpoints_dir, said.append) == path_of(run.run.checkpoints_dir, 4)
    if harm != "gone" or file != "state.json":  # without its mark it is no checkpoint
        assert len(said) == 1
        assert "step-00000006 is damaged" in said[0]
        assert hurt.parent.exists(), "nothing is lost"


def test_only_when_none_is_left_is_it_fatal(run: TrainingRun) -> None:
    for path in list_checkpoints(run.run.checkpoints_dir):
        (Path(path) / "trainable.safetensors").write_bytes(b"no")
    for _ in range(2):
        with pytest.raises(UserError, match="every checkpoint in it is damaged"):
            newest_good(run.run.checkpoints_dir, lambda text: None)


def test_training_goes_on_from_the_one_before(make_job: MakeJob) -> None:
    whole = make_job("whole", steps=4, checkpoint_every=2)
    hurt = make_job("hurt", steps=4, checkpoint_every=2)
    reference, _ = train_in_processes([whole, hurt], world=1)
    newest = Path(path_of(hurt.checkpoints, 4)) / "trainable.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    (resumed,) = train_in_processes([hurt], world=1)
    assert any("is damaged" in record.get("text", "") for record in resumed)
    assert losses(resumed) == pytest.approx(losses(reference)[2:], rel=1e-6)
    assert_same_parameters(whole, final_parameters(hurt))
