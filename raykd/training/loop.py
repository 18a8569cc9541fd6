"""The training loop of one worker: batches in, updates, records and checkpoints out. No Ray and no file formats.

K terms.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raykd.config.training import TrainConfig
from raykd.data.stream import StepBatches
from raykd.parts.clock import Clock
from raykd.parts.timing import part
from raykd.training.engine import Engine
from raykd.training.method import LiveMethod
from raykd.training.objective import ActiveTerm
from raykd.training.pace import Pace
from raykd.training.plan import TrainingPlan, learning_rate
from raykd.training.step import Step

Record = dict[str, Any]
_MOST_SKIPPED = 3
"""Global batches in a row whose gradient is not finite before training stops."""


class NotFiniteError(Exception):
    """The loss or the gradient became NaN or infinite. The message says at which step and in which utterances."""


@dataclass
class Trainer:
    """A model under training: what one step needs."""

    config: TrainConfig
    seed: int
    method: LiveMethod
    module: Step
    engine: Engine
    unit: str
    """What a row of a batch is: `utterances` or `segments`."""
    rank: int = 0
    world: int = 1
    skipped_in_a_row: int = 0
    events: list[str] = field(default_factory=list)
    """What happened beside the steps, for the history; whoever writes it there takes it out."""

    def step(self, batches: StepBatches, plan: TrainingPlan) -> Record:
        """Train on one global batch and return its record.

        Every term's mean is taken over its count in the whole global batch, which all workers know before the first backward
        pass: the engine averages over workers, so each worker's part is multiplied by their number. The largest count divides
        last, for all terms, so that gradients are no smaller than need be on the way. Where the gradient is not finite, the
        update is left out on all workers.

        Raises:
            NotFiniteError: the loss is NaN or infinite, or gradients were so several times in a row.
        """
        clock = Clock(batches.step, plan.steps, plan.steps_per_epoch, self.seed)
        for name in self.method.free_unneeded(clock):
            self.events.append(f"target `{name}` is not needed any more; it is not run from here on")
        terms = self.method.active(clock)
        micro = [self._prepared(batch, number, terms, clock) for number, batch in enumerate(batches.micro)]
        counts_K = self._summed([[active.term.count(batch, active.live) for active in terms] for batch in micro], len(terms))
        most = max([1.0, *counts_K.tolist()])
        terms = [
            replace(active, share=most / count if count else 0.0)
            for active, count in zip(terms, counts_K.tolist(), strict=True)
        ]
        rate = learning_rate(self.config, batches.step, plan.steps)
        sums_K = torch.zeros(len(terms), dtype=torch.float64, device=self.engine.device)
        passes_before = self.method.target_passes
        for number, batch in enumerate(micro):
            self._seed(clock, number)
            said = [k for k, active in enumerate(terms) if not active.term.silent(batch)]
            loss, term_sums = self.engine.forward(batch, self.method.targets, [terms[k] for k in said], clock)
            sums_K[said] += term_sums.detach()
            last = number == len(micro) - 1
            if last:
                means = self._means(sums_K, counts_K, terms, batches)
                passes = self._summed([[float(self.method.target_passes - passes_before)]], 1)
            with part("backward"):
                self.engine.backward(loss, self.world / most)
            if last:
                self.method.before_update(self.engine.gradient_of, clock)
            with part("optimiser"):
                updated = self.engine.step(rate)
        self._look_at_gradient(updated, batches)
        self.method.after_update(clock, means)
        return {**self._record(batches, plan, terms, means, rate, updated), "target_passes": int(passes)}

    def _prepared(self, batch: Any, number: int, terms: Sequence[ActiveTerm], clock: Clock) -> Any:
        self._seed(clock, number, "prepared")
        with part("copy"):
            batch = batch.to(self.engine.device)
        return self.method.prepared(batch, terms, clock, self.loss_gradient)

    def loss_gradient(self, batch: Any, terms: Sequence[ActiveTerm], clock: Clock) -> Tensor:
        """Gradient of the objective's mean over a micro-batch with respect to its mel, without dropout."""
        mel_BMF = batch.mel_BMF.detach().requires_grad_()
        probe = batch.changed(mel_BMF=mel_BMF)
        means = [replace(active, share=1 / max(1, active.term.count(probe, active.live))) for active in terms]
        learner = self.module.learner.current()
        training = learner.training
        learner.eval()
        with self.method.targets(probe, means) as targets, torch.enable_grad():
            loss = self.module.loss_of(learner, probe, targets, means, clock)
            (gradient_BMF,) = torch.autograd.grad(loss, mel_BMF)
        learner.train(training)
        return gradient_BMF

    def _seed(self, clock: Clock, micro: int, purpose: str = "forward") -> None:
        """Dropout is a function of (seed, step, micro-batch, rank): a resumed run draws the same, another number of workers
        draws others.
        """
        key = repr((self.seed, clock.step, micro, self.rank, purpose))
        torch.manual_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little"))

    def _summed(self, rows: list[list[float]], width: int) -> Tensor:
        """Sum of rows over micro-batches and workers."""
        total = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width).sum(0).to(self.engine.device)
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def _means(self, sums_K: Tensor, counts_K: Tensor, terms: Sequence[ActiveTerm], batches: StepBatches) -> dict[str, float]:
        """Of each term that any token of the global batch counts for; all workers know whether they are finite."""
        if self.world > 1:
            dist.all_reduce(sums_K)
        values = zip(terms, sums_K.tolist(), counts_K.tolist(), strict=True)
        means = {active.name: total / count for active, total, count in values if count}
        if not all(map(math.isfinite, means.values())):
            bad = ", ".join(f"{name} {mean}" for name, mean in means.items())
            raise NotFiniteError(f"the loss became not finite ({bad}) at step {batches.step + 1}" + self._advice(batches))
        return means

    def _look_at_gradient(self, updated: bool, batches: StepBatches) -> None:
        if updated:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        text = f"the gradient of step {batches.step + 1} is not finite, so its update is left out"
        self.events.append(text + self._of_utterances(batches))
        if self.skipped_in_a_row == _MOST_SKIPPED:
            raise NotFiniteError(f"the gradient was not finite in {_MOST_SKIPPED} steps in a row" + self._advice(batches))

    def _advice(self, batches: StepBatches) -> str:
        return (
            self._of_utterances(batches)
            + "; lower train.lr, lengthen train.warmup_steps or set train.clip_norm and start again; checkpoints are kept"
        )

    def _of_utterances(self, batches: StepBatches) -> str:
        ids = [utterance for batch in batches.micro for utterance in batch.ids]
        return f" (worker {self.rank} had {', '.join(ids[:8])})"

    def _record(
        self,
        batches: StepBatches,
        plan: TrainingPlan,
        terms: Sequence[ActiveTerm],
        means: dict[str, float],
        rate: float,
        updated: bool,
    ) -> Record:
        steps_per_epoch = plan.steps_per_epoch
        values = {active.name: active.term.of_mean(means[active.name]) for active in terms if active.name in means}
        return {
            "kind": "train",
            "step": batches.step + 1,
            "steps": plan.steps,
            "epoch": batches.epoch + (batches.step % steps_per_epoch + 1) / steps_per_epoch,
            "lr": rate,
            "loss": sum(active.weight * values.get(active.name, 0.0) for active in terms),
            "terms": values,
            "weights": {active.name: active.weight for active in terms},
            "grad_norm": self.engine.gradient_norm(),
            "precision": str(self.module.head.product_dtype).removeprefix("torch."),
            "tokens": batches.global_tokens,
            self.unit: batches.global_utterances,
            **({} if updated else {"skipped": True}),
        }


def train(
    trainer: Trainer,
    batches: Iterable[StepBatches],
    plan: TrainingPlan,
    pace: Pace,
    on_step: Callable[[Record, StepBatches], None],
    checkpoint: Callable[[int], None],
) -> None:
    """Run all steps in `batches`. `checkpoint(step)` is called, on every worker, after the steps the plan names.

    Raises:
        NotFiniteError: see `Trainer.step`.
    """
    trainer.engine.train()
    for step_batches in pace.batches(batches):
        record = pace.counted(lambda one: trainer.step(one, plan), step_batches)
        on_step(record, step_batches)
        if plan.checkpoint_due(record["step"]):
            checkpoint(record["step"])
