"""The training room with real DeepSpeed: what the number of workers, accumulation, ZeRO stage and a resume must not change."""

from dataclasses import replace
from typing import TypeVar

import pytest
import torch

from raykd.training.checkpoint import delete_checkpoint, latest_checkpoint, list_checkpoints, step_of
from raykd.training.worker import TrainingJob
from tests.jobs import MakeJob
from tests.training.workers import final_parameters, train_in_processes

JobT = TypeVar("JobT", bound=TrainingJob)


def losses(records: list[dict]) -> list[float]:
    return [record["loss"] for record in records if record["kind"] == "train"]


def norms(records: list[dict]) -> list[float]:
    return [record["grad_norm"] for record in records if record["kind"] == "train"]


def assert_same_parameters(job: TrainingJob, expected: dict[str, torch.Tensor]) -> None:
    for name, value in final_parameters(job).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-5, msg=name)


def resumed_at(job: JobT, step: int) -> JobT:
    """The job, whose checkpoints after a step are lost."""
    for path in list_checkpoints(job.checkpoints):
        if step_of(path) > step:
            delete_checkpoint(path)
    return job


def test_workers_accumulation_and_zero_stage_do_not_change_training(make_job: MakeJob) -> None:
    """22 utterances in batches of 8: the last batch of an epoch is smaller, and uneven over workers."""
    one = make_job("one", zero_stage=0)
    accumulated = make_job("accumulated", zero_stage=0, micro_batch_size=4)
    reference, by_accumulation = train_in_processes([one, accumulated], world=1)
    assert len(losses(reference)) == 4
    expected = final_parameters(one)
    stages = [make_job(f"stage-{stage}", zero_stage=stage) for stage in (0, 1, 2, 3)]
    both = make_job("both", zero_stage=1, micro_batch_size=2)
    by_workers = train_in_processes([*stages, both], world=2)
    for job, records in zip([accumulated, *stages, both], [by_accumulation, *by_workers], strict=True):
        assert losses(records) == pytest.approx(losses(reference), rel=1e-5), job.checkpoints
        assert norms(records) == pytest.approx(norms(reference), rel=1e-4), job.checkpoints
        assert_same_parameters(job, expected)


def test_training_goes_on_from_a_checkpoint_with_another_number_of_workers(make_job: MakeJob) -> None:
    whole = make_job("whole", steps=6, checkpoint_every=3)
    part = make_job("part", steps=6, checkpoint_every=3)
    (reference,) = train_in_processes([whole], world=1)
    (_, until_6) = train_in_processes([part, part], world=2)
    assert losses(until_6) == [], "a finished run has nothing left to train"
    cut = resumed_at(replace(part, checkpoints=whole.checkpoints), 3)
    (resumed,) = train_in_processes([cut], world=2)
    assert [record["step"] for record in resumed if record["kind"] == "train"] == [4, 5, 6]
    assert losses(resumed) == pytest.approx(losses(reference)[3:], rel=1e-5)
    assert_same_parameters(cut, final_parameters(part))


def test_a_trained_encoder_and_zero_3_with_a_sharded_teacher(make_job: MakeJob) -> None:
    plain = make_job("plain", student={"freeze_encoder": False}, steps=2, zero_stage=0)
    zero_3 = make_job("zero-3", student={"freeze_encoder": False}, steps=2, zero_stage=3)
    assert zero_3.config.teacher is not None
    teacher = zero_3.config.teacher.model_copy(update={"sharded": True})
    sharded = replace(zero_3, config=zero_3.config.model_copy(update={"teacher": teacher}))
    reference, by_shards = train_in_processes([plain, sharded], world=2)
    assert losses(by_shards) == pytest.approx(losses(reference), rel=1e-5)
    assert_same_parameters(sharded, final_parameters(plain))


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_checkpoint(make_job: MakeJob) -> None:
    job = make_job("diverging", steps=12, checkpoint_every=1, lr=1e30, clip_norm=0)
    (records,) = train_in_processes([job], world=2)
    (stopped,) = [record for record in records if record["kind"] == "stopped"]
    assert "train.lr" in stopped["reason"]
    assert latest_checkpoint(job.checkpoints) is not None


def test_a_full_disk_stops_training_and_keeps_the_last_checkpoint(make_job: MakeJob) -> None:
    job = make_job("full", steps=4, checkpoint_every=1)
    longer = replace(job, config=job.config.model_copy(update={"train": job.config.train.model_copy(update={"steps": 6})}))
    train_in_processes([job], world=2)
    before = list_checkpoints(job.checkpoints)
    (records,) = train_in_processes([longer], world=2, largest_file=100_000)
    (stopped,) = [record for record in records if record["kind"] == "stopped"]
    assert "step 5 could not be written" in stopped["reason"]
    assert before[-1] in stopped["reason"]
    assert "--resume" in stopped["reason"]
    assert list_checkpoints(job.checkpoints) == before
