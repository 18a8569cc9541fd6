"""HomoDistil: the student is the teacher, pruned step by step while it is distilled, so that the two are never far apart."""

from typing import Literal

from pydantic import Field

from raykd.config.schedule import Temperature, Weight
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.hidden_states import HiddenStates
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import Term
from raykd.parts.updates.shrinking import Sensitivity


class HomoDistilRecipe(Recipe):
    """HomoDistil (Liang et al. 2023, arXiv 2302.09632): lambda_ce · CE + lambda_kl · KL(teacher ‖ student) + lambda_hidden ·
    distance of the decoder's states, while units are pruned by |weight · gradient|. It wants `student: {kind: shrinking}`.

    Only the abstract was at hand, with what a follow-up (CHOP) says of it and PLATON's code. The paper's: the student starts as
    the teacher, every matrix keeps the same share, importance by sensitivity, distillation at every size. Ours: all weights and
    the temperature; distances of attention maps and of the encoder's states are left out; the states of what was left aside
    count too, since they stay as wide as the teacher's until the end, so no projection is needed.
    """

    recipe: Literal["homodistil"] = "homodistil"
    lambda_ce: Weight = 1.0
    """Weight of the labels' cross-entropy."""
    lambda_kl: Weight = 1.0
    """Weight of the divergence from the teacher."""
    lambda_hidden: Weight = 1.0
    """Weight of the mean squared distance of the decoder's states; 0: they are not compared."""
    temperature: Temperature = 1.0
    """Of both sides of the divergence, which is multiplied by its square."""
    begin: float = Field(0.05, ge=0, lt=1)
    """Share of training after which pruning begins."""
    end: float = Field(0.6, gt=0, le=1)
    """Share of training after which the student has its final size."""
    every: int = Field(10, ge=1)
    """Steps from one pruning to the next."""
    beta1: float = Field(0.85, ge=0, lt=1)
    """What the average of the importance keeps of itself at each step."""
    uncertainty: bool = False
    """Whether importance is multiplied by how unsure it is: see `sensitivity`."""

    def method(self) -> Method:
        """Two or three terms and the pruning."""
        at = {"student_temperature": self.temperature, "target_temperature": self.temperature}
        terms: list[Term] = [Ce(weight=self.lambda_ce), Kl(weight=self.lambda_kl, **at)]
        if self.lambda_hidden != 0:
            terms.append(HiddenStates(weight=self.lambda_hidden))
        pruning = Sensitivity(begin=self.begin, end=self.end, every=self.every, beta1=self.beta1, uncertainty=self.uncertainty)
        return Method(terms=tuple(terms), updates=(pruning,))
