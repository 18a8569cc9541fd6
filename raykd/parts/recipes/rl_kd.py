"""Reinforced multi-teacher selection: which of several teachers teach an utterance is learned.

Shapes: B utterances, N valid tokens.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from raykd.config.base import wrong
from raykd.config.schedule import Temperature
from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.outputs import Outputs
from raykd.parts.part import Live
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.targets.target import TEACHER, Target
from raykd.parts.targets.whisper import WhisperTarget
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import Chunk, OutputTerm, Term, TokenTerm
from raykd.parts.updates.selection import SELECTED, SHARE, Selection

_NOT_SHARDED = "each worker runs the teachers that its own utterances take, so none can be sharded; leave it out"


def _is_sharded(target: Target) -> bool:
    return isinstance(target, WhisperTarget) and target.sharded


def _weight_B(batch: Any, teacher: str) -> Tensor:
    if SELECTED not in batch.memo:
        raise UserError("objective: no teachers were selected here; an update `selection` is needed, and no adversarial input")
    weight_B: Tensor = batch.memo[SELECTED][teacher]
    return weight_B


class SelectedKl(Kl):
    """KL(target ‖ student) that counts in each utterance as much as the target was given there (`selection`). Where no
    utterance of a micro-batch takes it, its target is not run.
    """

    kind: Literal["selected_kl"] = "selected_kl"  # type: ignore[assignment]

    def silent(self, batch: Any) -> bool:
        """Nobody takes the target."""
        return not bool(_weight_B(batch, self.target).any())

    def token_weights(self, at: Chunk) -> Tensor:
        """See `TokenTerm`."""
        return _weight_B(at.batch, self.target)[at.batch.utterance_N[at.tokens]]


class Chosen(OutputTerm):
    """A metric: the share of utterances that a teacher was taken for."""

    kind: Literal["chosen"] = "chosen"
    only_measured: ClassVar[bool] = True
    teacher: str
    """Its name. It need not be run for this."""

    def count(self, batch: Any, live: Live | None = None) -> float:
        """Utterances."""
        return float(len(batch.ids))

    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Any, clock: Clock, live: Live | None) -> Tensor:
        """Those that took it."""
        return (_weight_B(batch, self.teacher) > 0).sum()


class Share(TokenTerm):
    """A metric: what part of a label's probability under the weighted mixture of all teachers is this one's."""

    kind: Literal["share"] = "share"
    only_measured: ClassVar[bool] = True
    contexts: Literal["gold"] = "gold"
    """Only where there are labels."""
    teacher: str
    """Its name."""
    teachers: tuple[str, ...]
    """All names."""

    def targets(self) -> tuple[str, ...]:
        """All."""
        return self.teachers

    def values(self, at: Chunk) -> Tensor:
        """See `TokenTerm`."""
        log_KN = torch.stack([self._log_part(at, name) for name in self.teachers])
        return log_KN.softmax(0)[self.teachers.index(self.teacher)]

    def _log_part(self, at: Chunk, name: str) -> Tensor:
        weight_N = _weight_B(at.batch, name)[at.batch.utterance_N[at.tokens]]
        return at.of_labels(name)[at.tokens].to(at.dtype) + weight_N.to(at.dtype).clamp(min=1e-30).log()


class RlKdRecipe(Recipe):
    """Reinforced multi-teacher selection (Yuan et al. 2021, arXiv 2012.06048): (1 - alpha) · CE + alpha · the mean of
    KL(teacher ‖ student) over the teachers that a policy takes for the utterance, both sides at the temperature, times its
    square.

    How the policy works and what is ours in it: `raykd config selection`. Ours as well: the default temperature (GLMKD has 10).
    `choose: average` and `choose: learned` are what to compare it with.
    """

    recipe: Literal["rl_kd"] = "rl_kd"
    teachers: dict[str, Target]
    """Whispers and masked language models by name, all of the student's vocabulary: `{large: {kind: whisper, model: ...}}`."""
    with_teacher: bool = True
    """Whether the config's `teacher` is one of them, too."""
    alpha: float = Field(0.5, ge=0, lt=1)
    """Weight of the teachers; the labels' cross-entropy has the rest."""
    temperature: Temperature = 2.0
    """Of both sides of the divergences."""
    choose: Literal["policy", "learned", "average"] = "policy"
    """Who teaches: whom the policy takes, all with learned weights, or all alike."""
    warm_up: float = Field(0.1, ge=0, le=1)
    """Share of training in which all teachers count alike."""
    policy_lr: float = Field(0.1, gt=0)
    """Length of the policy's gradient steps, or how fast learned weights follow."""
    reward: Literal["ce", "ce_kd"] = "ce"
    """-CE of the student, or -CE - distillation loss."""

    @model_validator(mode="after")
    def _are_several(self) -> "RlKdRecipe":
        if len(self._names()) < 2:
            raise wrong("there is only one teacher to choose from; give another, or take recipe: kd", "teachers")
        for name, target in self.teachers.items():
            if name == TEACHER:
                raise wrong("is the config's own teacher; give the other another name", "teachers", name)
            if _is_sharded(target):
                raise wrong(_NOT_SHARDED, "teachers", name, "sharded")
        return self

    def taught_by(self, teacher: Target) -> Target:
        """As it is.

        Raises:
            UserError: it is sharded, so that all workers would have to run it at once.
        """
        if _is_sharded(teacher):
            raise UserError(f"teacher.sharded: {_NOT_SHARDED}")
        return teacher

    def _names(self) -> tuple[str, ...]:
        return (*((TEACHER,) if self.with_teacher else ()), *self.teachers)

    def method(self) -> Method:
        """A term a teacher, metrics, and the choice."""
        names = self._names()
        at = {"student_temperature": self.temperature, "target_temperature": self.temperature}
        terms: list[Term] = [Ce(weight=1 - self.alpha)]
        terms += [SelectedKl(name=f"kl_{name}", target=name, weight=self.alpha, **at) for name in names]
        if self.choose == "policy":
            terms += [Chosen(name=f"chosen_{name}", teacher=name) for name in names]
        if self.choose == "learned":
            terms += [Share(name=f"{SHARE}{name}", teacher=name, teachers=names) for name in names]
        choice = Selection(
            teachers=names, choose=self.choose, warm_up=self.warm_up, policy_lr=self.policy_lr, reward=self.reward
        )
        return Method(terms=tuple(terms), targets=self.teachers, updates=(choice,))
