"""Lengths, cutting and learning rate."""

import pytest

from raykd.config.training import TrainConfig
from raykd.errors import UserError
from raykd.training.plan import accumulation_steps, effective_zero_stage, learning_rate, plan_training


def config(**keys: object) -> TrainConfig:
    return TrainConfig.model_validate({"steps": 100, **keys})


def test_epochs_become_steps() -> None:
    by_epochs = TrainConfig(epochs=2.5, batch_size=8)
    assert plan_training(by_epochs, steps_per_epoch=10).steps == 25
    assert plan_training(TrainConfig(epochs=0.01), steps_per_epoch=10).steps == 1


def test_a_warm_up_is_no_longer_than_its_epochs() -> None:
    by_epochs = TrainConfig(epochs=4, warmup_steps=40)
    assert plan_training(by_epochs, steps_per_epoch=10).steps == 40
    with pytest.raises(UserError, match=r"train\.warmup_steps: must be at most the 36 steps of 4 epochs \(got 40\)"):
        plan_training(by_epochs, steps_per_epoch=9)


def test_evaluations_write_a_checkpoint_and_the_last_step_is_evaluated() -> None:
    plan = plan_training(config(eval_every=40, checkpoint_every=30), steps_per_epoch=10)
    assert [step for step in range(1, 101) if plan.evaluation_due(step)] == [40, 80, 100]
    assert [step for step in range(1, 101) if plan.checkpoint_due(step)] == [30, 40, 60, 80, 90, 100]


def test_without_eval_every_a_run_is_evaluated_five_times() -> None:
    plan = plan_training(config(), steps_per_epoch=10)
    assert sum(plan.evaluation_due(step) for step in range(1, 101)) == 5


@pytest.mark.parametrize(
    ("micro", "world", "expected"), [(None, 1, 1), (None, 3, 1), (4, 1, 4), (4, 2, 2), (4, 3, 2), (1, 16, 1)]
)
def test_accumulation(micro: int | None, world: int, expected: int) -> None:
    assert accumulation_steps(config(batch_size=16, micro_batch_size=micro), world) == expected


def test_warm_up_reaches_the_rate_and_decay_reaches_zero() -> None:
    linear = config(lr=1.0, warmup_steps=10, lr_schedule="linear")
    assert learning_rate(linear, 0, 100) == pytest.approx(0.1)
    assert learning_rate(linear, 9, 100) == learning_rate(linear, 10, 100) == pytest.approx(1.0)
    assert learning_rate(linear, 55, 100) == pytest.approx(0.5)
    assert learning_rate(linear, 100, 100) == 0.0


def test_cosine_and_constant() -> None:
    cosine, constant = config(lr=1.0, lr_schedule="cosine"), config(lr=1.0, lr_schedule="constant")
    assert learning_rate(cosine, 50, 100) == pytest.approx(0.5)
    assert learning_rate(cosine, 25, 100) == pytest.approx(0.8535534)
    assert learning_rate(constant, 99, 100) == 1.0


@pytest.mark.parametrize(
    ("stage", "workers", "runs"), [(0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 3), (1, 2, 1), (2, 4, 2), (0, 2, 0)]
)
def test_one_worker_shares_nothing(stage: int, workers: int, runs: int) -> None:
    assert effective_zero_stage(config(zero_stage=stage), workers) == runs
