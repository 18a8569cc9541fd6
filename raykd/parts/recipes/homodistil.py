"""HomoDistil: the student is the teacher, pruned step by step while it is distilled, so that the two are never far apart."""

from typing import Literal

from pydantic import Field

from raykd.parts.recipes.recipe import Method
from raykd.parts.recipes.shrinking import ShrinkingRecipe
from raykd.parts.updates.shrinking import Sensitivity


class HomoDistilRecipe(ShrinkingRecipe):
    """HomoDistil (Liang et al. 2023, arXiv 2302.09632): lambda_ce · CE + lambda_kl · KL(teacher ‖ student) + lambda_hidden ·
    distance of the decoder's states, while units are pruned by |weight · gradient|. It wants `student: {kind: shrinking}`.

    Only the abstract was at hand, with what a follow-up (CHOP) says of it and PLATON's code. The paper's: the student starts as
    the teacher, every matrix keeps the same share, importance by sensitivity, distillation at every size. Ours: all weights and
    the temperature; distances of attention maps and of the encoder's states are left out; the states of what was left aside
    count too, since they stay as wide as the teacher's until the end, so no projection is needed.
    """

    recipe: Literal["homodistil"] = "homodistil"
    beta1: float = Field(0.85, ge=0, lt=1)
    """What the average of the importance keeps of itself at each step."""
    uncertainty: bool = False
    """Whether importance is multiplied by how unsure it is: see `sensitivity`."""

    def method(self) -> Method:
        """The terms and the pruning."""
        pruning = Sensitivity(beta1=self.beta1, uncertainty=self.uncertainty, **self.times())
        return Method(terms=self.distilled(), updates=(pruning,))
