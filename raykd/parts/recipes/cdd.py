"""Capacity dynamic distillation: the student starts as large as its teacher, and a group lasso empties the channels that matter
least.

Shapes: F channels of a feed-forward block.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.config.schedule import Temperature, Weight
from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.outputs import Outputs
from raykd.parts.part import Live
from raykd.parts.recipes.recipe import Method
from raykd.parts.recipes.shrinking import ShrinkingRecipe
from raykd.parts.students.shrinking import ROW_NORMS
from raykd.parts.terms.term import OutputTerm
from raykd.parts.updates.shrinking import RowNorms


class GroupLasso(OutputTerm):
    """The sum of the norms of all rows of all compactors: it draws whole rows to 0."""

    kind: Literal["group_lasso"] = "group_lasso"
    needs: ClassVar[frozenset[str]] = frozenset({ROW_NORMS})

    def count(self, batch: Any, live: Live | None = None) -> float:
        """One a micro-batch: it is about the weights, and the same in each."""
        return 1.0

    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Any, clock: Clock, live: Live | None) -> Tensor:
        """See `OutputTerm`.

        Raises:
            UserError: the student has no compactors.
        """
        norms = student.auxiliary.get(ROW_NORMS)
        if not norms:
            raise UserError("objective: group_lasso: no compactors; set student.kind: shrinking and student.compactors: true")
        return torch.stack([norms_F.sum() for norms_F in norms]).sum()


class CddRecipe(ShrinkingRecipe):
    """Capacity dynamic distillation (Xie et al. 2023, arXiv 2303.09230; SCY-X/Capacity_Dynamic_Distillation): lambda_ce · CE +
    lambda_kl · KL(teacher ‖ student) + lambda_hidden · distance of the decoder's states + lambda_lasso · group lasso on the
    compactors. It wants `student: {kind: shrinking, compactors: true}`.

    The published: compactors that start as the identity, the weights, the temperature, a half of the channels that the task
    leaves alone from a sixth of training on. Ours: channels of feed-forward blocks in place of those of convolutions; the mean
    squared distance of states at every valid token in place of that of pooled features; no triplet loss, which is about
    retrieval; which channels the task leaves alone (`row_norms`); and the end, where the paper drops what came below 1e-5:
    here a schedule leaves the rows with the smallest norms aside until the wanted size is reached, because Adam draws nothing
    to an exact 0.
    """

    recipe: Literal["cdd"] = "cdd"
    lambda_hidden: Weight = 0.5
    """Weight of the mean squared distance of the decoder's states; 0: they are not compared."""
    lambda_lasso: Weight = 0.004
    """Weight of the group lasso."""
    temperature: Temperature = 2.0
    """Of both sides of the divergence, which is multiplied by its square."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of the cross-entropy."""
    reset: float = Field(0.5, ge=0, lt=1)
    """Share of the channels that get no gradient from the task."""
    reset_from: float = Field(1 / 6, ge=0, le=1)
    """Share of training after which."""
    begin: float = Field(0.2, ge=0, lt=1)
    """Share of training after which the first channels are left aside."""
    end: float = Field(0.7, gt=0, le=1)
    """Share of training after which the student has its final size."""

    def method(self) -> Method:
        """The terms, the lasso, and what leaves channels aside."""
        shrinks = RowNorms(reset=self.reset, reset_from=self.reset_from, **self.times())
        return Method(terms=(*self.distilled(), GroupLasso(weight=self.lambda_lasso)), updates=(shrinks,))
