"""Multilingual DistilWhisper: the objective of language experts.

Shapes: B utterances, T positions of encoder or decoder.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from pydantic import Field, model_validator
from torch import Tensor

from raykd.config.schedule import Temperature, Weight
from raykd.data.batches import Batch, counted_positions
from raykd.errors import UserError
from raykd.models.routing import Stack
from raykd.parts.clock import Clock
from raykd.parts.outputs import Outputs
from raykd.parts.part import Live
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.students.experts import GATES, ExpertsLearner, gates_of
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.js import Js
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import OutputTerm, Term

if TYPE_CHECKING:
    from raykd.parts.worker import Worker

_HALF_OVER_SIGMA_SQUARED = round(1 / (2 * 1.41**2), 6)


class LiveGates(Live):
    """Which gates a student has, and the mean of a term over them at the last step."""

    def __init__(self, student: ExpertsLearner, term: str) -> None:
        self.layers, self.languages = student.gate_layers, student.languages
        self._term = term
        self.mean = torch.full((), float("nan"), dtype=torch.float64)
        """Before the first step not a number."""

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        """Remember the mean."""
        if self._term in means:
            self.mean = torch.tensor(means[self._term], dtype=torch.float64)

    def state(self) -> dict[str, Tensor]:
        """The mean."""
        return {"mean": self.mean}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The mean."""
        self.mean = state["mean"].to("cpu", torch.float64)


class _GateTerm(OutputTerm):
    """A mean over gates."""

    needs: ClassVar[frozenset[str]] = frozenset({GATES})

    def build(self, on: "Worker") -> LiveGates:
        """See `LiveGates`.

        Raises:
            UserError: the student has no experts.
        """
        if not isinstance(on.student, ExpertsLearner):
            raise UserError(f"objective: {self.kind}: the student has no gates; take student.kind experts")
        return LiveGates(on.student, self.name or self.kind)


class GateBudget(_GateTerm):
    """|mean of the gates - budget|, over the tokens of all encoder and decoder layers together (paper, section 3; naver's
    `model/DistillationTrainer.py`, which takes the mean over each worker's micro-batch, padded positions included).

    Ours: the mean is over the global batch, whatever the workers, and over positions that are no padding. On which side of the
    budget it lies is known only when all micro-batches have passed, so the gradient takes the side of the step before; at the
    first step there is none.
    """

    kind: Literal["gate_budget"] = "gate_budget"
    budget: float = Field(0.5, ge=0, le=1)
    """Share of the work that experts should do."""
    padding: bool = False
    """Whether padded positions count too, as in the released code."""

    def count(self, batch: Batch, live: Live | None = None) -> float:
        """Gates: positions times layers, of both stacks."""
        assert isinstance(live, LiveGates)
        masks = counted_positions(batch, live.languages, self.padding)
        return float(sum(live.layers[stack] * int(mask_BT.sum()) for stack, mask_BT in masks.items()))

    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Batch, clock: Clock, live: Live | None) -> Tensor:
        """The sum of the gates, with the gradient of the term."""
        assert isinstance(live, LiveGates)
        masks = counted_positions(batch, live.languages, self.padding)
        parts = [(gates_of(student.auxiliary, stack).soft_BT * mask_BT).sum() for stack, mask_BT in masks.items()]
        total = torch.stack(parts).sum()
        slope = torch.nan_to_num(torch.sign(live.mean - self.budget)).to(total)
        return total.detach() + slope * (total - total.detach())

    def of_mean(self, mean: float) -> float:
        """The term's value."""
        return abs(mean - self.budget)


class ExpertUse(_GateTerm):
    """A metric: the share of tokens and layers that the hard gates, those of inference, send to an expert (the paper's figure
    2), over utterances that have one. No part of the loss.
    """

    kind: Literal["expert_use"] = "expert_use"
    only_measured: ClassVar[bool] = True
    stack: Stack
    """`encoder` or `decoder`."""

    def count(self, batch: Batch, live: Live | None = None) -> float:
        """Gates of the stack."""
        assert isinstance(live, LiveGates)
        return float(live.layers[self.stack] * int(counted_positions(batch, live.languages)[self.stack].sum()))

    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Batch, clock: Clock, live: Live | None) -> Tensor:
        """Those that are open."""
        assert isinstance(live, LiveGates)
        mask_BT = counted_positions(batch, live.languages)[self.stack]
        return (gates_of(student.auxiliary, self.stack).hard_BT * mask_BT).sum()


class DistilWhisperRecipe(Recipe):
    """Multilingual DistilWhisper (Ferraz et al. 2024, arXiv 2311.01070; naver/multilingual-distilwhisper
    `model/DistillationTrainer.py`): lambda_ce · CE + lambda_gate · |mean gate - budget| + lambda_kd · D(teacher, student).

    The published weights are those of uncertainty weighting with fixed sigmas: (CE + gate) / (2 · 1.41²) + D / 2. There D is a
    mean over all positions of a padded batch (`batchmean`), padding included; here it is over the labels alone, so that it
    weighs a little more wherever batches were padded. With `lambda_kd: 0` it is CLSR-FT, which needs no teacher. It wants
    `student: {kind: experts}`, and adds the use of experts in both stacks as metrics.
    """

    recipe: Literal["distilwhisper"] = "distilwhisper"
    lambda_ce: Weight = _HALF_OVER_SIGMA_SQUARED
    """Weight of the labels' cross-entropy."""
    lambda_gate: Weight = _HALF_OVER_SIGMA_SQUARED
    """Weight of the gate budget."""
    lambda_kd: Weight = 0.5
    """Weight of the distillation."""
    budget: float = Field(0.5, ge=0, le=1)
    """b: the share of tokens and layers that should go through an expert."""
    padding: bool = False
    """Whether padded positions count for the budget, as in the released code."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of the cross-entropy."""
    divergence: Literal["js", "kl"] = "js"
    """D: Jensen-Shannon, or the appendix's KL(teacher ‖ student)."""
    temperature: Temperature = 1.0
    """Of both sides of D, which is multiplied by its square."""

    @model_validator(mode="after")
    def _divergence_is_used(self) -> "DistilWhisperRecipe":
        if self.lambda_kd == 0 and "divergence" in self.model_fields_set:
            raise ValueError("divergence has no effect where lambda_kd is 0; leave it out")
        return self

    def method(self) -> Method:
        """Three terms, two of them where there is no distillation, and two metrics."""
        terms: list[Term] = [
            Ce(weight=self.lambda_ce, label_smoothing=self.label_smoothing),
            GateBudget(name="gate_budget", weight=self.lambda_gate, budget=self.budget, padding=self.padding),
        ]
        if self.lambda_kd != 0:
            kind = Js if self.divergence == "js" else Kl
            at = {"student_temperature": self.temperature, "target_temperature": self.temperature}
            terms.append(kind(weight=self.lambda_kd, **at))
        terms += [ExpertUse(name=f"expert_use_{stack}", stack=stack) for stack in get_args(Stack)]
        return Method(terms=tuple(terms))
