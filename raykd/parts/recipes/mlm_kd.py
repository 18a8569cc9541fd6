"""Czech Whisper-tiny: a masked language model teaches."""

from typing import Literal

from pydantic import Field, model_validator

from raykd.config.base import wrong
from raykd.config.schedule import ScheduleConfig, Temperature
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.targets.mlm import MlmTarget
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl

PUBLISHED_VOCABULARY = 51_865
"""Tokens that the published MLM code averages its divergence over (openai/whisper-tiny)."""


class MlmKdRecipe(Recipe):
    """Czech Whisper-tiny: lambda_lm · CE + (1 - lambda_lm) · KL(MLM ‖ student), the MLM reading the gold text on both sides.

    Hobit2002/TracheoSpeech_ASR has it in two readings that differ by a factor of 50 000 in the weight of the KL:

    - `card`: the model card's formula as it stands, CE and KL both means over tokens; temperatures 1 unless given;
    - `code`: what `asr/whisper_module.py` weighs. Its KL is a mean over tokens AND the V = 51 865 vocabulary entries, so that a
      token's KL counts 1/V, and is multiplied by the square of the student's temperature, 2 unless given.

    With KL a mean over tokens, `code` is lambda_lm · CE + (1 - lambda_lm) · t · KL, where t = temperature^2 / V. Both weights
    are then divided by their sum, which Adam does not notice but its epsilon and the clipping of gradients would: 0.93 · CE +
    0.07 · KL at the published lambda_lm = 1e-3. So `code` at lambda_lm is, but for a common factor, `card` at the same
    temperatures and lambda_lm / (lambda_lm + (1 - lambda_lm) / V), which is 0.98. Padding, which the code distils too, is left
    out.
    """

    recipe: Literal["mlm_kd"] = "mlm_kd"
    mlm: MlmTarget
    """The masked language model: its folder, its config, or a section."""
    preset: Literal["card", "code"] = "code"
    """Which of the two readings."""
    lambda_lm: float = Field(1e-3, ge=0, le=1)
    """Weight of the labels' cross-entropy; the rest is the masked language model's."""
    student_temperature: Temperature | None = None
    """None: 2 under `code`, 1 under `card`."""
    mlm_temperature: Temperature = 1.0
    """The masked language model's logits are divided by this."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Of the cross-entropy."""

    @model_validator(mode="after")
    def _code_has_one_temperature(self) -> "MlmKdRecipe":
        if self.preset == "code" and isinstance(self.student_temperature, ScheduleConfig):
            raise wrong("must be a number under preset: code, whose weights follow from it", "student_temperature")
        return self

    def method(self) -> Method:
        """The weights of both presets, as derived above."""
        temperature = self.student_temperature or (2.0 if self.preset == "code" else 1.0)
        weight_ce, weight_kl = self.lambda_lm, 1 - self.lambda_lm
        if self.preset == "code":
            assert isinstance(temperature, float)
            # The term itself is multiplied by the temperature's square, so that is in the sum but not in the weight.
            weight_kl /= PUBLISHED_VOCABULARY
            total = weight_ce + weight_kl * temperature**2
            weight_ce, weight_kl = weight_ce / total, weight_kl / total
        ce = Ce(weight=weight_ce, label_smoothing=self.label_smoothing)
        kl = Kl(target="mlm", weight=weight_kl, student_temperature=temperature, target_temperature=self.mlm_temperature)
        return Method(terms=(ce, kl), targets={"mlm": self.mlm})
