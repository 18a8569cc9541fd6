"""What the recipes of students that shrink have in common."""

from pydantic import Field

from raykd.config.schedule import Temperature, Weight
from raykd.parts.recipes.recipe import Recipe
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.hidden_states import HiddenStates
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import Term


class ShrinkingRecipe(Recipe):
    """lambda_ce · CE + lambda_kl · KL(teacher ‖ student) + lambda_hidden · distance of the decoder's states, while units are
    left aside. It wants `student: {kind: shrinking}`.
    """

    lambda_ce: Weight = 1.0
    """Weight of the labels' cross-entropy."""
    lambda_kl: Weight = 1.0
    """Weight of the divergence from the teacher."""
    lambda_hidden: Weight = 1.0
    """Weight of the mean squared distance of the decoder's states; 0: they are not compared."""
    temperature: Temperature = 1.0
    """Of both sides of the divergence, which is multiplied by its square."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Of the cross-entropy."""
    begin: float = Field(0.05, ge=0, lt=1)
    """Share of training after which the first units are left aside."""
    end: float = Field(0.6, gt=0, le=1)
    """Share of training after which the student has its final size."""
    every: int = Field(10, ge=1)
    """Steps from one time to the next."""

    def distilled(self) -> tuple[Term, ...]:
        """The two or three terms."""
        at = {"student_temperature": self.temperature, "target_temperature": self.temperature}
        terms = (Ce(weight=self.lambda_ce, label_smoothing=self.label_smoothing), Kl(weight=self.lambda_kl, **at))
        return terms if self.lambda_hidden == 0 else (*terms, HiddenStates(weight=self.lambda_hidden))

    def times(self) -> dict[str, float]:
        """When units are left aside, for the update that does it."""
        return {"begin": self.begin, "end": self.end, "every": self.every}
