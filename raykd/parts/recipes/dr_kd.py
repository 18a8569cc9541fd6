"""Dynamic rectification: where the teacher's first guess is wrong, it changes places with the label.

Shapes: N valid tokens, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.config.schedule import Temperature
from raykd.data.batches import Batch
from raykd.parts.distribution import TokenDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.targets.target import TEACHER, LiveTarget, Target
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl

if TYPE_CHECKING:
    from raykd.parts.worker import Worker


class Rectified(Target):
    """Another target, whose first guess and the label change places where they differ (Amik et al. 2022, arXiv 2201.11319).

    The authors swap two logits (notebook of Amik-TJ/dynamic_rectification_knowledge_distillation); after a softmax of any
    temperature that is a swap of two probabilities. Ours: it is done at every valid token, special tokens included, and left
    out where the decoder reads what the student itself has said, since there is no label there.
    """

    kind: Literal["rectified"] = "rectified"
    of: str = TEACHER
    """Name of the target that is rectified."""

    def made_from(self) -> tuple[str, ...]:
        """The other target."""
        return (self.of,)

    def build(self, on: "Worker") -> "LiveRectified":
        """Nothing to load."""
        return LiveRectified(self.of)


class LiveRectified(LiveTarget):
    """See `Rectified`."""

    runs_a_model: ClassVar = False

    def __init__(self, of: str) -> None:
        self._of = of

    def outputs(self, batch: Batch, wanted: frozenset[str], others: Mapping[str, Outputs]) -> Outputs:
        """See `LiveTarget`."""
        said = others[self._of]
        assert said.distribution is not None
        return Outputs(RectifiedDistribution(said.distribution, batch.labels_N, batch.mask_N("gold")), said.auxiliary)


@dataclass(frozen=True)
class RectifiedDistribution:
    """A distribution with the probabilities of its first guess and of the label swapped."""

    wrapped: TokenDistribution
    labels_N: Tensor
    gold_N: Tensor | None = None
    """bool: where there is a label; None: everywhere."""

    @property
    def shape(self) -> tuple[int, int]:
        """Valid tokens N and size of the vocabulary V."""
        return self.wrapped.shape

    @torch.no_grad()
    def log_probs(self, tokens: slice, temperature: float) -> Tensor:
        """See `TokenDistribution`."""
        log_NV = self.wrapped.log_probs(tokens, temperature)
        guess_N1, label_N1 = log_NV.argmax(-1, keepdim=True), self.labels_N[tokens, None]
        if self.gold_N is not None:
            label_N1 = torch.where(self.gold_N[tokens, None], label_N1, guess_N1)
        of_guess_N1, of_label_N1 = log_NV.gather(1, guess_N1), log_NV.gather(1, label_N1)
        return log_NV.scatter_(1, guess_N1, of_label_N1).scatter_(1, label_N1, of_guess_N1)


class DrKdRecipe(Recipe):
    """DR-KD: (1 - alpha) · CE + alpha · multiplier · KL(rectified teacher ‖ student), both sides at the temperature, times its
    square.

    From the authors' notebook. Their KL is a mean over batch AND classes, hence their multiplier of up to 100; ours is a mean
    over valid tokens (a sum over the vocabulary), for which the multiplier is 1. alpha and temperature are those of their
    ResNet-50; a teacher of speech is surer of itself, and a lower temperature may serve (our remark). Their teacher is a
    student trained before; any `teacher` will do.
    """

    recipe: Literal["dr_kd"] = "dr_kd"
    alpha: float = Field(0.95, ge=0, le=1)
    """Weight of the divergence; the labels' cross-entropy has the rest."""
    temperature: Temperature = 6.0
    """Of both sides of the divergence."""
    multiplier: float = Field(1.0, ge=0)
    """Of the divergence."""

    def method(self) -> Method:
        """Two terms and a target made of the teacher."""
        kl = Kl(
            target="rectified",
            weight=self.alpha * self.multiplier,
            student_temperature=self.temperature,
            target_temperature=self.temperature,
        )
        return Method(terms=(Ce(weight=1 - self.alpha), kl), targets={"rectified": Rectified()})
