"""Adversarial distillation: the student learns on speech that was changed a little to mislead it.

Shapes: B utterances, M mel channels, F frames of the window.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from raykd.config.schedule import Temperature, Weight
from raykd.data.batches import Batch
from raykd.parts.clock import Clock
from raykd.parts.inputs.input import Input, LiveInput, LossGradient
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl

if TYPE_CHECKING:
    from raykd.parts.worker import Worker


class Adversarial(Input):
    """The mel moved by epsilon in each value, the way that raises the objective: mel + epsilon · sign(gradient).

    One step of the fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572); the objective is the run's own. Ours:
    the whole window is changed, padding included; dropout is off for the gradient, and targets give it what they say of clean
    speech.
    """

    kind: Literal["adversarial"] = "adversarial"
    epsilon: Weight = 0.01
    """Largest change of a log-mel value (they span about 2): a number or a schedule."""
    teacher_hears: Literal["clean", "perturbed"] = "clean"
    """Which mel the targets hear."""

    def reaches_targets(self) -> bool:
        """As `teacher_hears` says."""
        return self.teacher_hears == "perturbed"

    def build(self, on: "Worker") -> "LiveAdversarial":
        """See `LiveAdversarial`."""
        return LiveAdversarial(self)


class LiveAdversarial(LiveInput):
    """Perturbs each micro-batch against the student as it is at that step."""

    def __init__(self, config: Adversarial) -> None:
        self._config = config

    def apply(self, batch: Batch, loss_gradient: LossGradient, clock: Clock) -> Batch:
        """See `LiveInput`."""
        mel_BMF = batch.mel_BMF + clock.at(self._config.epsilon) * loss_gradient(batch).sign()
        clean_BMF = batch.mel_BMF if batch.teacher_mel_BMF is None else batch.teacher_mel_BMF
        heard = {"teacher_mel_BMF": clean_BMF} if self._config.teacher_hears == "clean" else {}
        return batch.changed(mel_BMF=mel_BMF, **heard)


class AkdRecipe(Recipe):
    """AKD: cross-entropy with (1 - alpha) · label + alpha · teacher, on adversarial speech (Maroto et al. 2022, arXiv
    2203.07159).

    Only the abstract was at hand: the mixture of labels and teacher and the weak attack are the paper's; the attack, its size,
    the temperature (the teacher's alone) and which speech the teacher hears are ours. The term is written as (1 - alpha) · CE +
    alpha · KL(teacher ‖ student), which has the same gradient.
    """

    recipe: Literal["akd"] = "akd"
    alpha: float = Field(0.5, ge=0, le=1)
    """Share of the teacher in the mixture."""
    temperature: Temperature = 2.0
    """The teacher's logits are divided by this."""
    epsilon: Weight = 0.01
    """Size of the attack: see the input `adversarial`."""
    teacher_hears: Literal["clean", "perturbed"] = "clean"
    """Which speech the teacher hears."""

    def method(self) -> Method:
        """Two terms and an input."""
        kl = Kl(weight=self.alpha, target_temperature=self.temperature)
        attack = Adversarial(epsilon=self.epsilon, teacher_hears=self.teacher_hears)
        return Method(terms=(Ce(weight=1 - self.alpha), kl), inputs=(attack,))
