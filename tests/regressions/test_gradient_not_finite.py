"""A finite loss with a gradient that is not: Adam once wrote NaN into every weight without ZeRO, and with ZeRO the update was
left out without a word.
"""

from typing import Any

import torch

from raykd.training.checkpoint import list_checkpoints
from tests.jobs import MakeJob
from tests.training import own_parts  # noqa: F401 (makes them known)
from tests.training.test_training import assert_same_parameters
from tests.training.workers import final_parameters, train_in_processes


def objective(*steps: int) -> dict[str, Any]:
    return {"terms": [{"kind": "ce"}, {"kind": "breaking", "steps": list(steps)}]}


def test_the_update_is_left_out_in_every_stage_and_said(make_job: MakeJob) -> None:
    usual: dict[str, Any] = {"steps": 4, "checkpoint_every": 2, "objective": objective(1), "micro_batch_size": 2}
    one = make_job("one", **usual)
    jobs = [make_job(f"stage-{stage}", zero_stage=stage, **usual) for stage in (0, 1, 2, 3)]
    runs = [*train_in_processes([one], world=1), *train_in_processes(jobs, world=2)]
    expected = final_parameters(one)
    assert all(torch.isfinite(value).all() for value in expected.values())
    for job, records in zip([one, *jobs], runs, strict=True):
        assert [record.get("skipped", False) for record in records if record["kind"] == "train"] == [False, True, False, False]
        (text,) = [record["text"] for record in records if record["kind"] == "event"]
        assert "gradient of step 2 is not finite" in text
        assert "utterance-" in text
        assert_same_parameters(job, expected)


def test_three_in_a_row_stop_and_the_checkpoint_before_is_good(make_job: MakeJob) -> None:
    usual: dict[str, Any] = {"steps": 8, "checkpoint_every": 2, "objective": objective(2, 3, 4)}
    jobs = [make_job(f"stop-{stage}", zero_stage=stage, **usual) for stage in (0, 2)]
    for job, records in zip(jobs, train_in_processes(jobs, world=2), strict=True):
        (stopped,) = [record for record in records if record["kind"] == "stopped"]
        assert "3 steps in a row" in stopped["reason"]
        assert list_checkpoints(job.checkpoints)
        assert all(torch.isfinite(value).all() for value in final_parameters(job).values())
