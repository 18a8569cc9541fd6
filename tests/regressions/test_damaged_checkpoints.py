"""A torn line of history once deleted every checkpoint on --resume; a damaged newest checkpoint was fatal although older ones
lay beside it, and a flipped bit was not seen at all.
"""

import json
from pathlib import Path

import pytest

from raykd.errors import UserError
from raykd.runs import TrainingRun
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.training.checkpoint import list_checkpoints, newest_good, path_of
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
    assert run._start() == before[-1]
    assert list_checkpoints(run.run.checkpoints_dir) == before
    run.history.flush()
    assert "lacks 2 of the first 6 steps, such as 2" in history.read_text("utf-8")


def test_no_history_at_all(run: TrainingRun) -> None:
    Path(run.run.history_path).unlink()
    assert run._start() == path_of(run.run.checkpoints_dir, 6)


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
