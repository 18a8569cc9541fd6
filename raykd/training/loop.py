"""The training loop of one worker: batches in, updates, records and checkpoints out. No Ray and no file formats."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raykd.config.objective import TermConfig
from raykd.config.training import TrainConfig
from raykd.data.stream import StepBatches
from raykd.objectives.recipes import ResolvedTerm, resolve_terms
from raykd.training.engine import Engine
from raykd.training.plan import TrainingPlan, learning_rate

Record = dict[str, Any]
Forward = Callable[[Any, Sequence[ResolvedTerm]], tuple[Tensor, Tensor]]
"""(micro-batch, terms) -> the sum of the weighted terms over its valid tokens, and each term's own sum: `training.step`."""


class NotFiniteError(Exception):
    """The loss became NaN or infinite. The message says at which step and in which utterances."""


@dataclass
class Trainer:
    """A model under training: what one step needs."""

    config: TrainConfig
    terms: tuple[TermConfig, ...]
    engine: Engine
    forward: Forward
    unit: str
    """What a row of a batch is: `utterances` or `segments`."""
    world: int = 1

    def step(self, batches: StepBatches, plan: TrainingPlan) -> Record:
        """Train on one global batch and return its record.

        The mean is taken over the valid tokens of the whole global batch, whose count every worker knows beforehand: the
        engine averages over workers, so each worker's sum is multiplied by their number.

        Raises:
            NotFiniteError: the loss is NaN or infinite; the parameters are then not updated.
        """
        steps, steps_per_epoch = plan.steps, plan.steps_per_epoch
        terms = resolve_terms(self.terms, batches.step, steps)
        rate = learning_rate(self.config, batches.step, steps)
        sums = torch.zeros(len(terms) + 1, dtype=torch.float64)
        for micro, batch in enumerate(batches.micro):
            loss_sum, term_sums = self.forward(batch, terms)
            sums[0] += loss_sum.detach().double().cpu()
            sums[1:] += term_sums.detach().double().cpu()
            if micro == len(batches.micro) - 1:
                means = self._mean_over_workers(sums, batches.global_tokens)
                if not torch.isfinite(means).all():
                    raise NotFiniteError(_not_finite(batches, means))
            self.engine.backward(loss_sum * (self.world / batches.global_tokens))
            self.engine.step(rate)
        return {
            "kind": "train",
            "step": batches.step + 1,
            "steps": steps,
            "epoch": batches.epoch + (batches.step % steps_per_epoch + 1) / steps_per_epoch,
            "lr": rate,
            "loss": float(means[0]),
            "terms": {term.name: float(mean) for term, mean in zip(terms, means[1:], strict=True)},
            "weights": {term.name: term.weight for term in terms},
            "grad_norm": self.engine.gradient_norm(),
            "tokens": batches.global_tokens,
            self.unit: batches.global_utterances,
        }

    def _mean_over_workers(self, sums: Tensor, global_tokens: int) -> Tensor:
        if self.world > 1:
            on_device = sums.to(self.engine.device)
            dist.all_reduce(on_device)
            sums = on_device.cpu()
        return sums / global_tokens


def train(
    trainer: Trainer,
    batches: Iterable[StepBatches],
    plan: TrainingPlan,
    on_step: Callable[[Record, StepBatches], None],
    checkpoint: Callable[[int], None],
) -> None:
    """Run all steps in `batches`. `checkpoint(step)` is called, on every worker, after the steps the plan names.

    Raises:
        NotFiniteError: see `Trainer.step`.
    """
    trainer.engine.train()
    for step_batches in batches:
        record = trainer.step(step_batches, plan)
        on_step(record, step_batches)
        if plan.checkpoint_due(record["step"]):
            checkpoint(record["step"])


def _not_finite(batches: StepBatches, means: Tensor) -> str:
    ids = [utterance for batch in batches.micro for utterance in batch.ids]
    return (
        f"the loss became {float(means[0])} at step {batches.step + 1} (this worker's utterances: {', '.join(ids[:8])}); "
        "lower train.lr, lengthen train.warmup_steps or set train.clip_norm and start again; checkpoints are kept"
    )
