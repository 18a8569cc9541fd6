"""Real-time distillation: the teacher is still learning while it teaches."""

from typing import Literal

from pydantic import Field

from raykd.config.schedule import Temperature, Weight
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.targets.learning import learning
from raykd.parts.targets.target import TEACHER, Target
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl


class RealTimeRecipe(Recipe):
    """Real-time distillation (Sun and Fazli 2019, arXiv 1912.12630): CE of the teacher + lambda_ce · CE of the student +
    lambda_kl · KL(teacher ‖ student), both models trained in one pass over the data; the teacher gets nothing from the student.

    The paper is about reinforcement learning: teacher and students have a loss of their own, and the student's policy is drawn
    to the teacher's newest one. Ours: cross-entropy in place of the losses of temporal difference, the weights and the
    temperature (which the text does not give), times its square as elsewhere; gradients are clipped together. The teacher
    starts from the config's `teacher`, which may be a model that was never trained.
    """

    recipe: Literal["real_time"] = "real_time"
    lambda_ce: Weight = 1.0
    """Weight of the student's cross-entropy."""
    lambda_kl: Weight = 1.0
    """Weight of the divergence from the teacher as it is by now."""
    temperature: Temperature = 2.0
    """Of both sides of the divergence."""
    trains: Literal["adapters", "decoder", "all"] = "decoder"
    """What of the teacher learns: low-rank adapters in its decoder, the decoder, or the encoder as well."""
    rank: int = Field(32, ge=1)
    """Of adapters."""

    def taught_by(self, teacher: Target) -> Target:
        """As one that learns."""
        return learning(teacher, self.recipe, trains=self.trains, rank=self.rank)

    def method(self) -> Method:
        """The student's terms and the teacher's."""
        kl = Kl(weight=self.lambda_kl, student_temperature=self.temperature, target_temperature=self.temperature)
        return Method(terms=(Ce(weight=self.lambda_ce), kl, Ce(name="ce_teacher", of=TEACHER)))
