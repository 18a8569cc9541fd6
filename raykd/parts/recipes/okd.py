"""Online distillation: a small module in the teacher learns from the student what it should teach."""

from typing import Literal

from pydantic import Field

from raykd.config.schedule import Temperature, Weight
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.targets.learning import learning
from raykd.parts.targets.target import TEACHER, Target
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.js import Js
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.reverse_kl import ReverseKl
from raykd.parts.terms.term import STUDENT, Term


class OkdRecipe(Recipe):
    """OKD (Rao et al. 2024, arXiv 2409.12512): KL(teacher ‖ student) for the student, and for the teacher's online module
    (1 - alpha) · CE + alpha · KL(student ‖ teacher), everything else of the teacher frozen.

    The paper's: adapters of rank 32 in W_q and W_v (Eq. 16 and 17, algorithm 1), the student taught by the teacher alone, one
    learning rate for both. Ours: alpha, which the text does not give; adapters also in cross-attention, which the paper's
    models do not have; both models are updated in one optimiser step with the probabilities from before it, where algorithm 1
    may update the teacher first; gradients are clipped together.
    """

    recipe: Literal["okd"] = "okd"
    alpha: float = Field(0.5, ge=0, le=1)
    """Share of the student in what the teacher learns; the labels have the rest."""
    rank: int = Field(32, ge=1)
    """Of the adapters."""
    scale: float = Field(1.0, gt=0)
    """s: what the adapters' part is multiplied by."""
    divergence: Literal["kl", "reverse_kl", "js"] = "kl"
    """What the student is taught by: KL(teacher ‖ student), KL(student ‖ teacher) or Jensen-Shannon."""
    lambda_ce: Weight = 0.0
    """Weight of the labels' cross-entropy for the student; the paper does best without."""
    temperature: Temperature = 1.0
    """Of both sides of all divergences, which are multiplied by its square."""

    def taught_by(self, teacher: Target) -> Target:
        """With adapters."""
        return learning(teacher, self.recipe, trains="adapters", rank=self.rank, scale=self.scale)

    def method(self) -> Method:
        """The student's terms and the teacher's."""
        at = {"student_temperature": self.temperature, "target_temperature": self.temperature}
        kinds: dict[str, type[Kl | ReverseKl | Js]] = {"kl": Kl, "reverse_kl": ReverseKl, "js": Js}
        terms: list[Term] = [
            kinds[self.divergence](**at),
            Ce(name="ce_teacher", of=TEACHER, weight=1 - self.alpha),
            Kl(name="kl_teacher", of=TEACHER, target=STUDENT, weight=self.alpha, **at),
        ]
        if self.lambda_ce != 0:
            terms.insert(0, Ce(weight=self.lambda_ce))
        return Method(terms=tuple(terms))
