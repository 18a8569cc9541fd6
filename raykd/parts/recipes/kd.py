"""Distil-Whisper's loss."""

from typing import Literal

from pydantic import Field

from raykd.config.schedule import Temperature, Weight
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl


class KdRecipe(Recipe):
    """Distil-Whisper: lambda_ce · CE + lambda_kl · KL(teacher ‖ student), both sides at the temperature, times its square.

    The defaults are the published code's (huggingface/distil-whisper `training/run_distillation.py`); the paper's Eq. 6 has
    0.8 on KL and 1.0 on CE instead.
    """

    recipe: Literal["kd"] = "kd"
    lambda_ce: Weight = 0.8
    """Weight of the labels' cross-entropy: a number or a schedule."""
    lambda_kl: Weight = 1.0
    """Weight of the divergence from the teacher."""
    temperature: Temperature = 2.0
    """Of both sides of the divergence."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Of the cross-entropy."""

    def method(self) -> Method:
        """Two terms."""
        ce = Ce(weight=self.lambda_ce, label_smoothing=self.label_smoothing)
        kl = Kl(weight=self.lambda_kl, student_temperature=self.temperature, target_temperature=self.temperature)
        return Method(terms=(ce, kl))
