"""When and by what a student leaves units aside.

Shapes: U units.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from raykd.errors import UserError
from raykd.models.shrinking import Units
from raykd.parts.clock import Clock
from raykd.parts.part import Live
from raykd.parts.students.shrinking import ShrinkingLearner
from raykd.parts.updates.update import Update

if TYPE_CHECKING:
    from raykd.parts.worker import Worker


class Shrinks(Update):
    """Units are left aside by a cubic schedule, as PLATON has it (QingruZhang/PLATON `Pruner.py`): of n units with m left at
    the end, m + (n - m) (1 - u)³ are used, u going from 0 at `begin` to 1 at `end`. What was left aside stays so.
    """

    begin: float = Field(0.05, ge=0, lt=1)
    """Share of training after which the first units are left aside."""
    end: float = Field(0.6, gt=0, le=1)
    """Share of training after which the student has its final size. Checkpoints before that are never given away."""
    every: int = Field(10, ge=1)
    """Steps from one time to the next."""

    @model_validator(mode="after")
    def _takes_time(self) -> "Shrinks":
        if self.begin >= self.end:
            raise ValueError(f"begin ({self.begin:g}) must be below end ({self.end:g})")
        return self

    @property
    def settled(self) -> float:
        """As `end` says."""
        return self.end

    def used(self, one: Units, done: int, steps: int) -> int:
        """Units that are used after so many steps."""
        begin, end = self.begin * steps, round(self.end * steps)
        u = min(1.0, max(0.0, (done - begin) / max(end - begin, 1e-9)))
        return one.left + round((one.count - one.left) * (1 - u) ** 3)

    def is_due(self, done: int, steps: int) -> bool:
        """Whether units are left aside after this many steps."""
        return done % self.every == 0 or done == round(self.end * steps)


class LiveShrinking(Live):
    """Leaves the units of the lowest scores aside, the same on every worker. The masks are the student's own."""

    def __init__(self, on: "Worker", config: Shrinks) -> None:
        if not isinstance(on.student, ShrinkingLearner):
            raise UserError(f"objective: {config.kind}: the student keeps its size; take student.kind shrinking")
        self.student, self._schedule = on.student, config

    @abstractmethod
    def scores(self) -> dict[str, Tensor]:
        """score_U of the units that are to shrink, by name. Collective."""

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        """Leave as many aside as the schedule says."""
        done = clock.step + 1
        if not self._schedule.is_due(done, clock.steps):
            return
        scores = self.scores()
        for one in self.student.units:
            used = self._schedule.used(one, done, clock.steps)
            if used < int(one.kept_U.sum()):
                kept_U = one.kept_U.bool()
                score_U = scores[one.name].to(kept_U.device).masked_fill(~kept_U, -torch.inf)
                one.keep(score_U.topk(used).indices)


class Sensitivity(Shrinks):
    """Units by the sum of |weight · gradient| over their weights, averaged over steps with `beta1` (HomoDistil; the average as
    in PLATON, QingruZhang/PLATON `Pruner.py`).

    `uncertainty` multiplies it by the average of its own changes with `beta2`, as a follow-up (CHOP) describes it; whether
    HomoDistil does is not known. There it is taken of each weight, here of each unit (ours): otherwise it would take two more
    numbers a parameter.
    """

    kind: Literal["sensitivity"] = "sensitivity"
    beta1: float = Field(0.85, ge=0, lt=1)
    """What the average keeps of itself at each step."""
    uncertainty: bool = False
    """Whether units whose importance is unsure count more."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """For `uncertainty`."""

    def build(self, on: "Worker") -> "LiveSensitivity":
        """The averages."""
        return LiveSensitivity(on, self)


class LiveSensitivity(LiveShrinking):
    """Averages of units' importance."""

    def __init__(self, on: "Worker", config: Sensitivity) -> None:
        super().__init__(on, config)
        self._config = config
        self._mean = {one.name: torch.zeros(one.count, dtype=torch.float64) for one in self.student.units}
        self._unsure = {name: torch.zeros_like(mean_U) for name, mean_U in self._mean.items()} if config.uncertainty else {}

    def before_update(self, gradient_of: Callable[[nn.Parameter], Tensor | None], clock: Clock) -> None:
        """Take this step's importance in, unless a gradient is not finite."""
        config = self._config
        parts = self.student.current().parts_of_units
        gradients = {name: gradient_of(parameter) for name, parameter in self.student.parts_of_units.items()}
        for one in self.student.units:
            now_U = importance(one, parts, gradients)
            if not torch.isfinite(now_U).all():
                continue
            mean_U = self._mean[one.name]
            mean_U.lerp_(now_U, 1 - config.beta1)
            if config.uncertainty:
                self._unsure[one.name].lerp_((now_U - mean_U).abs(), 1 - config.beta2)

    def scores(self) -> dict[str, Tensor]:
        """The averages, with uncertainty times it."""
        return {name: mean_U * self._unsure[name] if self._unsure else mean_U for name, mean_U in self._mean.items()}

    def state(self) -> dict[str, Tensor]:
        """The averages."""
        unsure = {f"unsure/{name}": value_U for name, value_U in self._unsure.items()}
        return {**{f"mean/{name}": mean_U for name, mean_U in self._mean.items()}, **unsure}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The averages."""
        for name, value_U in self.state().items():
            value_U.copy_(state[name])


@torch.no_grad()
def importance(one: Units, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None]) -> Tensor:
    """Of each unit: the sum of |weight · gradient| over its weights, float64 on the CPU. What got no gradient counts 0."""
    total_U = torch.zeros(one.count, dtype=torch.float64)
    for name, dimension in one.places:
        gradient = gradients[name]
        if gradient is None:
            continue
        product = (parameters[name].detach() * gradient.reshape(parameters[name].shape)).abs().movedim(dimension, 0)
        total_U += product.reshape(one.count, -1).sum(1, dtype=torch.float64).cpu()
    return total_U


class RowNorms(Shrinks):
    """Channels by the norm of their row of the compactor (Capacity Dynamic Distillation, Xie et al. 2023, arXiv 2303.09230).

    From `reset_from` on the `reset` share of the channels in use with the smallest norms get no gradient from the task, so that
    the group lasso alone moves them. Ours: which channels these are. The paper finds them by comparing the features of a
    sentence with those of its nearest neighbours in a queue of the teacher's.
    """

    kind: Literal["row_norms"] = "row_norms"
    reset: float = Field(0.5, ge=0, lt=1)
    """Share of the channels that get no gradient from the task."""
    reset_from: float = Field(1 / 6, ge=0, le=1)
    """Share of training after which (the paper: epoch 20 of 120)."""

    def build(self, on: "Worker") -> "LiveRowNorms":
        """See `LiveRowNorms`.

        Raises:
            UserError: the student has no compactors.
        """
        return LiveRowNorms(on, self)


class LiveRowNorms(LiveShrinking):
    """Leaves channels aside, and says which get no gradient from the task."""

    def __init__(self, on: "Worker", config: RowNorms) -> None:
        super().__init__(on, config)
        self._config = config
        if not self.student.compacted or len(self.student.compacted) < len(self.student.units):
            raise UserError(
                "objective: row_norms: ranks channels by compactors; set student.compactors: true, and no student.heads"
            )

    def scores(self) -> dict[str, Tensor]:
        """The norms."""
        norms = [layer.compactor.detach().norm(dim=1) for layer in self.student.current().compacted]
        return {one.name: norms_F for one, norms_F in zip(self.student.units, norms, strict=True)}

    @torch.no_grad()
    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        """Also choose anew whom the task leaves alone."""
        super().after_update(clock, means)
        done = clock.step + 1
        if done < self._config.reset_from * clock.steps or not self._config.is_due(done, clock.steps):
            return
        scores = self.scores()
        for one, layer in zip(self.student.units, self.student.compacted, strict=True):
            kept_U = one.kept_U.bool()
            norms_F = scores[one.name].to(kept_U.device).masked_fill(~kept_U, torch.inf)
            weakest = norms_F.topk(int(self._config.reset * int(kept_U.sum())), largest=False).indices
            layer.reset_F.zero_()[weakest] = 1
