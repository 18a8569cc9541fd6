"""What runs have in common: absolute paths, what may change on a resume, and what is left of a run that never began."""

import os
from pathlib import Path
from typing import Any

import pytest

from raykd.config import Config, MlmRunConfig
from raykd.config.data import ManifestSource
from raykd.errors import UserError
from raykd.runs import TrainingRun, opened_run, with_absolute_paths
from raykd.tracking.history import read_history
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder

TREE: dict[str, Any] = {
    "data": {"source": ["speech.jsonl", "hf:google/fleurs", "demo"]},
    "teacher": {"model": "openai/whisper-tiny"},
    "student": {"init": "small"},
    "objective": {"mlm": "lm", "terms": [{"kind": "kl"}, {"kind": "kl", "target": "mlm"}]},
    "train": {"steps": 10},
    "tracking": {"mlflow": False},
}


def config(**changes: Any) -> Config:
    return Config.model_validate({**TREE, **changes})


@pytest.fixture
def quiet() -> Progress:
    return Progress(quiet=True)


def test_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("small", "lm"):
        (tmp_path / folder).mkdir()
    (tmp_path / "words.txt").touch()
    found: Any = with_absolute_paths(config(evaluation={"vocabulary": "words.txt"}))
    manifest, hub, _ = found.data.source
    assert isinstance(manifest, ManifestSource)
    assert manifest.path == f"{tmp_path}/speech.jsonl"
    assert hub.path == "google/fleurs"
    assert (found.teacher.model, found.student.model) == ("openai/whisper-tiny", f"{tmp_path}/small")
    assert found.objective.targets["mlm"].model == f"{tmp_path}/lm"
    assert (found.output_dir, found.data.cache_dir) == (f"{tmp_path}/runs", f"{tmp_path}/cache")
    assert found.evaluation.vocabulary == f"{tmp_path}/words.txt"
    text = {"source": ["cs.txt.xz", "demo"], "language": "cs"}
    mlm = with_absolute_paths(MlmRunConfig.model_validate({"text": text, "train": {"steps": 1}}))
    assert mlm.text.source[0].path == f"{tmp_path}/cs.txt.xz"  # type: ignore[union-attr]
    assert mlm.text.cache_dir == f"{tmp_path}/cache"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"train": {"steps": 10, "lr": 0.5}}, "train.lr"),
        ({"seed": 1}, "seed"),
        ({"data": {"source": "demo"}}, "data.source"),
        ({"objective": {"recipe": "ce"}}, "objective.recipe"),
    ],
)
def test_a_resume_with_another_value_names_its_key(tmp_path: Path, changes: dict[str, Any], key: str, quiet: Progress) -> None:
    with opened_run(config(output_dir=str(tmp_path)), False, 1, quiet):
        pass
    with (
        pytest.raises(UserError, match=rf"^{key}: differs from the run to resume"),
        opened_run(config(output_dir=str(tmp_path), **changes), True, 1, quiet),
    ):
        pytest.fail("resumed")


def test_machines_caches_tracking_and_evaluation_may_change_on_a_resume(tmp_path: Path, quiet: Progress) -> None:
    with opened_run(config(output_dir=str(tmp_path)), False, 1, quiet) as (_, before):
        pass
    data = {**TREE["data"], "cache_dir": str(tmp_path / "elsewhere"), "shard_utterances": 9, "max_reject_share": 0.5}
    changed = config(output_dir=str(tmp_path), cluster={"num_workers": 5}, evaluation={"batch_size": 3}, data=data)
    with opened_run(changed, True, 1, quiet) as (_, run):
        assert run == before
        assert "num_workers: 5" in run.read_text("config.yaml")


def test_what_is_free_within_a_part_may_change_on_a_resume(tmp_path: Path, quiet: Progress) -> None:
    with opened_run(config(output_dir=str(tmp_path)), False, 1, quiet) as (_, before):
        pass
    changed = {
        "teacher": {**TREE["teacher"], "sharded": True},
        "student": {**TREE["student"], "gradient_checkpointing": True},
        "objective": {**TREE["objective"], "mlm": {"model": "lm", "cache_mb": 1}},
    }
    with opened_run(config(output_dir=str(tmp_path), **changed), True, 1, quiet) as (resumed, run):
        assert run == before
        assert resumed.teacher is not None
        assert resumed.teacher.sharded
    changed["objective"]["mlm"]["passes"] = 3
    with (
        pytest.raises(UserError, match=r"^objective\.targets\.mlm\.passes: differs from the run to resume"),
        opened_run(config(output_dir=str(tmp_path), **changed), True, 1, quiet),
    ):
        pytest.fail("resumed")


def test_a_teachers_config_may_lie_elsewhere_on_a_resume(tmp_path: Path, quiet: Progress) -> None:
    """A resumed Ray job runs in another copy of the user's folder."""
    for folder in ("first", "second"):
        os.makedirs(tmp_path / folder)
        (tmp_path / folder / "teacher.yaml").touch()
    first, second = (
        config(output_dir=str(tmp_path), teacher={"model": f"{tmp_path}/{n}/teacher.yaml"}) for n in ("first", "second")
    )
    with opened_run(first, False, 1, quiet) as (_, before):
        pass
    with opened_run(second, True, 1, quiet) as (_, run):
        assert run == before


def test_a_run_that_a_mistake_ended_before_it_began_leaves_no_folder(tmp_path: Path, quiet: Progress) -> None:
    with pytest.raises(UserError, match="broken"), opened_run(config(output_dir=str(tmp_path)), False, 1, quiet):
        raise UserError("broken")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="broken"), opened_run(config(output_dir=str(tmp_path)), False, 1, quiet):
        _record_and_fail(tmp_path / "distil")
    assert [folder.name for folder in tmp_path.iterdir()] == ["distil"]


def _record_and_fail(run: Path) -> None:
    (run / "history.jsonl").touch()
    raise UserError("broken")


def test_what_became_of_a_lost_worker_is_told(tmp_path: Path, quiet: Progress) -> None:
    of = config(output_dir=str(tmp_path))
    training = TrainingRun(of, RunFolder.create(of), quiet)
    for step in (0, 0):
        training._on_record({"kind": "started", "step": step})
    for step in (1, 2, 3):
        training._on_record({"kind": "train", "step": step, "steps": 10, "epoch": 0.5, "loss": 1.0})
    training._on_record({"kind": "started", "step": 2})
    training.history.flush()
    history = read_history(training.run.history_path)
    assert [event["text"] for event in history.events] == [
        "a training worker was lost before the first step; training starts again",
        "a training worker was lost after step 3; training goes on from the checkpoint of step 2",
    ]
    assert [record["step"] for record in history.train] == [1, 2]
