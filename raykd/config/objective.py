"""What the student is trained to match: terms, their targets and their weights over training."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from raykd.config.base import Section, wrong


class ScheduleConfig(Section):
    """A number that changes over training, from `start` to `end` between `begin` and `until`."""

    kind: Literal["constant", "linear", "cosine", "exponential", "step"] = "linear"
    start: float
    end: float | None = None
    """Value from `until` on; for `step`, the value from `begin` on. Not used by `constant`."""
    begin: float = Field(0.0, ge=0)
    until: float = Field(1.0, gt=0)
    by: Literal["progress", "step"] = "progress"
    """Unit of `begin` and `until`: share of training done (0 to 1) or optimiser steps."""

    @model_validator(mode="after")
    def _possible(self) -> "ScheduleConfig":
        if self.kind != "constant" and self.end is None:
            raise ValueError(f"a {self.kind} schedule needs `end`")
        if self.kind in {"linear", "cosine", "exponential"} and self.until <= self.begin:
            raise ValueError("`until` must be greater than `begin`")
        if self.kind == "exponential" and (self.start <= 0 or (self.end or 0) <= 0):
            raise ValueError("an exponential schedule needs `start` and `end` above 0")
        if self.by == "progress" and max(self.begin, self.until) > 1:
            raise ValueError("by progress, `begin` and `until` lie between 0 and 1; for steps say by: step")
        if self.by == "step" and self.kind in {"linear", "cosine", "exponential"} and "until" not in self.model_fields_set:
            raise ValueError(f"by step, a {self.kind} schedule needs `until`, the step from which it holds `end`")
        return self

    @property
    def lowest(self) -> float:
        """The smallest value over training."""
        return self.start if self.end is None else min(self.start, self.end)


def _never_negative(schedule: ScheduleConfig) -> ScheduleConfig:
    if schedule.lowest < 0:
        raise ValueError(f"must stay at least 0 (goes to {schedule.lowest:g})")
    return schedule


def _always_positive(schedule: ScheduleConfig) -> ScheduleConfig:
    if schedule.lowest <= 0:
        raise ValueError(f"must stay greater than 0 (goes to {schedule.lowest:g})")
    return schedule


Weight = Annotated[float, Field(ge=0)] | Annotated[ScheduleConfig, AfterValidator(_never_negative)]
Temperature = Annotated[float, Field(gt=0)] | Annotated[ScheduleConfig, AfterValidator(_always_positive)]


TARGETS = ("teacher",)
"""The token distributions that a term may be measured against."""


class TermConfig(Section):
    """One term of the objective: a divergence between a target and the student, with its weight over training."""

    kind: Literal["ce", "kl", "reverse_kl", "js"]
    name: str | None = None
    """Name in metrics (letters, digits and `_`); default: `kind`, with the target appended when two terms would clash."""
    target: str = "teacher"
    """Which token distribution; not used by `ce`, whose target is the label."""
    weight: Weight = 1.0
    student_temperature: Temperature = 1.0
    target_temperature: Temperature = 1.0
    scale_by_temperature: bool = True
    """Multiply by the student temperature squared, which keeps gradients comparable (Hinton et al. 2015)."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """For `ce`: mass spread evenly over the vocabulary."""
    mix: float = Field(0.5, gt=0, lt=1)
    """For `js`: weight of the target in the mixture m = mix * target + (1 - mix) * student."""

    @model_validator(mode="after")
    def _possible(self) -> "TermConfig":
        if self.name and not re.fullmatch("[A-Za-z0-9_]+", self.name):
            raise wrong(f"must be letters, digits and `_` (got {self.name!r})", "name")
        if self.label_smoothing and self.kind != "ce":
            raise wrong(f"only for kind: ce (this term is {self.kind})", "label_smoothing")
        if self.mix != 0.5 and self.kind != "js":
            raise wrong(f"only for kind: js (this term is {self.kind})", "mix")
        return self


class CeRecipe(Section):
    """Cross-entropy on the labels only: fine-tuning, and the demo teacher."""

    recipe: Literal["ce"]
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class KdRecipe(Section):
    """Distil-Whisper: lambda_ce * CE + lambda_kl * KL(teacher || student), both sides at the temperature, times its square.

    The defaults are the published code's (huggingface/distil-whisper `training/run_distillation.py`); the paper's Eq. 6 has
    0.8 on KL and 1.0 on CE instead.
    """

    recipe: Literal["kd"]
    lambda_ce: Weight = 0.8
    lambda_kl: Weight = 1.0
    temperature: Temperature = 2.0
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class TermsObjective(Section):
    """An objective written out term by term."""

    recipe: Literal["terms"] = "terms"
    terms: tuple[TermConfig, ...] = Field(min_length=1)


def _terms_speak_for_themselves(value: Any) -> Any:
    return {"recipe": "terms", **value} if isinstance(value, dict) and "terms" in value else value


ObjectiveConfig = Annotated[
    CeRecipe | KdRecipe | TermsObjective, Field(discriminator="recipe"), BeforeValidator(_terms_speak_for_themselves)
]
