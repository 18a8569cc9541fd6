"""What the student is trained to match: terms, their targets and their weights over training."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from raykd.config.base import Section, wrong
from raykd.config.mlm import MlmTeacher, MlmTeacherConfig


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


Target = Literal["teacher", "mlm"]
"""The token distributions that a term may be measured against: the Whisper teacher's, the masked language model's."""
PUBLISHED_VOCABULARY = 51_865
"""Tokens that the published MLM code averages its divergence over (openai/whisper-tiny)."""


class TermConfig(Section):
    """One term of the objective: a divergence between a target and the student, with its weight over training."""

    kind: Literal["ce", "kl", "reverse_kl", "js"]
    name: str | None = None
    """Name in metrics (letters, digits and `_`); default: `kind`, with the target appended when two terms would clash."""
    target: Target = "teacher"
    """Which token distribution: `teacher` or `mlm` (`objective.mlm`); not used by `ce`, whose target is the label."""
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


class MlmKdRecipe(Section):
    """Czech Whisper-tiny: lambda_lm * CE + (1 - lambda_lm) * KL(MLM || student), the MLM reading the gold text on both sides.

    Hobit2002/TracheoSpeech_ASR has it in two readings that differ by a factor of 50 000 in the weight of the KL:

    - `card`: the model card's formula as it stands, CE and KL both means over tokens; temperatures 1 unless given;
    - `code`: what `asr/whisper_module.py` weighs. Its KL is a mean over tokens AND the V = 51 865 vocabulary entries, so that a
      token's KL counts 1/V, and is multiplied by the square of the student's temperature, 2 unless given.

    With KL a mean over tokens, `code` is lambda_lm * CE + (1 - lambda_lm) * t * KL, where t = temperature^2 / V. Both weights
    are then divided by their sum, which Adam does not notice but its epsilon and the clipping of gradients would: 0.93 * CE +
    0.07 * KL at the published lambda_lm = 1e-3. So `code` at lambda_lm is, but for a common factor, `card` at the same
    temperatures and lambda_lm / (lambda_lm + (1 - lambda_lm) / V), which is 0.98. Padding, which the code distils too, is left
    out.
    """

    recipe: Literal["mlm_kd"]
    mlm: MlmTeacher
    preset: Literal["card", "code"] = "code"
    lambda_lm: float = Field(1e-3, ge=0, le=1)
    """Weight of the labels' cross-entropy; the rest is the masked language model's."""
    student_temperature: Temperature | None = None
    """None: 2 under `code`, 1 under `card`."""
    mlm_temperature: Temperature = 1.0
    label_smoothing: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _code_has_one_temperature(self) -> "MlmKdRecipe":
        if self.preset == "code" and isinstance(self.student_temperature, ScheduleConfig):
            raise wrong("must be a number under preset: code, whose weights follow from it", "student_temperature")
        return self


class TermsObjective(Section):
    """An objective written out term by term."""

    recipe: Literal["terms"] = "terms"
    terms: tuple[TermConfig, ...] = Field(min_length=1)
    mlm: MlmTeacher | None = None
    """The masked language model of terms with target: mlm."""

    @model_validator(mode="after")
    def _mlm_where_needed(self) -> "TermsObjective":
        for position, term in enumerate(self.terms):
            if term.kind != "ce" and term.target == "mlm" and self.mlm is None:
                raise wrong("needs the model's folder in objective.mlm", "terms", position, "target")
        return self


def _terms_speak_for_themselves(value: Any) -> Any:
    return {"recipe": "terms", **value} if isinstance(value, dict) and "terms" in value else value


ObjectiveConfig = Annotated[
    CeRecipe | KdRecipe | MlmKdRecipe | TermsObjective,
    Field(discriminator="recipe"),
    BeforeValidator(_terms_speak_for_themselves),
]


def needs_teacher(objective: ObjectiveConfig) -> bool:
    """Whether a Whisper teacher is a target of the objective."""
    if isinstance(objective, TermsObjective):
        return any(term.kind != "ce" and term.target == "teacher" for term in objective.terms)
    return isinstance(objective, KdRecipe)


def mlm_of(objective: ObjectiveConfig) -> MlmTeacherConfig | None:
    """The masked language model that teaches, if one does."""
    return objective.mlm if isinstance(objective, MlmKdRecipe | TermsObjective) else None
