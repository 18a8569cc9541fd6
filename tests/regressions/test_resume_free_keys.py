"""--resume once refused keys that do not change what is trained on what: out of memory meant to start again."""

from pathlib import Path
from typing import Any

import pytest

from raykd.config import Config
from raykd.config.load import parse
from raykd.errors import RunError, UserError
from raykd.runs import opened_run
from raykd.tracking.history import read_history
from raykd.tracking.progress import Progress

TREE: dict[str, Any] = {
    "data": {"source": "demo"},
    "teacher": {"model": "openai/whisper-tiny"},
    "objective": {"recipe": "mlm_kd", "mlm": {"model": "lm"}},
    "train": {"steps": 10},
    "tracking": {"mlflow": False},
}


def config(folder: Path, *overrides: str) -> Config:
    return parse(Config, {**TREE, "output_dir": str(folder)}, "c.yaml", overrides)


@pytest.mark.parametrize(
    "change",
    [
        "train.micro_batch_size=2",
        "train.zero_stage=3",
        "train.keep_checkpoints=7",
        "train.checkpoint_every=3",
        "train.eval_every=5",
        "train.record_ids=true",
        "data.cache_dir=elsewhere",
        "data.shard_utterances=99",
        "data.max_reject_share=0.5",
        "teacher.sharded=true",
        "student.gradient_checkpointing=true",
        "objective.mlm.cache_mb=5",
        "evaluation.batch_size=3",
        "cluster.num_workers=2",
        "tracking.log_every=3",
    ],
)
def test_it_may_change(change: str, tmp_path: Path) -> None:
    quiet = Progress(quiet=True)
    with opened_run(config(tmp_path), False, 1, quiet) as (_, before):
        pass
    with opened_run(config(tmp_path, change), True, 1, quiet) as (_, run):
        assert run == before
        (event,) = read_history(run.history_path).events
        assert event["text"].startswith(f"resumed with {change.split('=')[0]} "), "it is told, and kept"
    with opened_run(config(tmp_path, change), True, 1, quiet) as (_, run):
        assert len(read_history(run.history_path).events) == 1


def test_what_the_run_filled_in_is_no_change(tmp_path: Path) -> None:
    """Its config.yaml names the words of the masked language model's text, and the user's config does not."""
    quiet = Progress(quiet=True)
    with opened_run(config(tmp_path, "evaluation.vocabulary=words"), False, 1, quiet):
        pass
    with opened_run(config(tmp_path), True, 1, quiet) as (_, run):
        assert read_history(run.history_path).events == []


@pytest.mark.parametrize("change", ["train.batch_size=2", "train.precision=float32", "teacher.dtype=bfloat16"])
def test_it_may_not(change: str, tmp_path: Path) -> None:
    quiet = Progress(quiet=True)
    with opened_run(config(tmp_path), False, 1, quiet):
        pass
    with pytest.raises(UserError, match=change.split("=")[0]), opened_run(config(tmp_path, change), True, 1, quiet):
        pytest.fail("resumed")


def test_a_finished_run_keeps_the_config_that_it_was_made_with(tmp_path: Path) -> None:
    quiet = Progress(quiet=True)
    with opened_run(config(tmp_path), False, 1, quiet) as (_, run):
        for name in ("metrics.json", "report.html"):
            run.write_text(name, "")
        assert run.finished
    before = Path(run.config_path).read_text()
    with opened_run(config(tmp_path, "train.lr=0.5"), True, 1, quiet) as (_, again):
        assert again == run
    assert Path(run.config_path).read_text() == before


def test_a_file_that_is_gone_is_not_told_as_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    quiet = Progress(quiet=True)
    with (
        pytest.raises(RunError, match=r"stopped by .*shard-7.*--resume") as told,
        opened_run(config(tmp_path), False, 1, quiet),
    ):
        (tmp_path / "shard-7").read_bytes()
    assert "cannot be written" not in str(told.value)
