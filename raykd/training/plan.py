"""How long a run is, how a global batch is cut over workers, and the learning rate at each step. Pure functions."""

import math
from dataclasses import dataclass

from raykd.config.training import TrainConfig
from raykd.errors import UserError


@dataclass(frozen=True)
class TrainingPlan:
    """The lengths of a run, in optimiser steps. One step is one global batch."""

    steps: int
    steps_per_epoch: int
    eval_every: int
    checkpoint_every: int | None

    def checkpoint_due(self, step: int) -> bool:
        """Whether a checkpoint is written after `step` steps."""
        return self.evaluation_due(step) or (self.checkpoint_every is not None and step % self.checkpoint_every == 0)

    def evaluation_due(self, step: int) -> bool:
        """Whether the student is evaluated on dev after `step` steps."""
        return step == self.steps or step % self.eval_every == 0


def plan_training(config: TrainConfig, steps_per_epoch: int) -> TrainingPlan:
    """The plan for epochs of `steps_per_epoch` global batches.

    Raises:
        UserError: the epochs have fewer steps than the warm-up.
    """
    steps = config.steps if config.steps is not None else max(1, round((config.epochs or 1) * steps_per_epoch))
    if config.warmup_steps > steps:
        raise UserError(
            f"train.warmup_steps: must be at most the {steps} steps of {config.epochs:g} epochs (got {config.warmup_steps}); "
            "lower it or raise train.epochs"
        )
    return TrainingPlan(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        eval_every=config.eval_every or max(1, math.ceil(steps / 5)),
        checkpoint_every=config.checkpoint_every,
    )


def accumulation_steps(config: TrainConfig, world: int) -> int:
    """Micro-batches a worker takes for one global batch."""
    part = math.ceil(config.batch_size / world)
    return math.ceil(part / (config.micro_batch_size or part))


def effective_zero_stage(config: TrainConfig, world: int) -> int:
    """The ZeRO stage that runs. One worker has nobody to share with: stages 1 and 2 would only copy to and fro."""
    return 0 if world == 1 and config.zero_stage < 3 else config.zero_stage


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of update number `step` (from 0) of `steps`: linear warm-up, then linear, cosine or no decay to 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    remaining = (steps - step) / max(1, steps - config.warmup_steps)
    if config.lr_schedule == "linear":
        return config.lr * remaining
    return config.lr * 0.5 * (1 - math.cos(math.pi * remaining))
