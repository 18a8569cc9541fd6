"""FastWhisper: a teacher whose weight decays as training goes on, then the student as its own teacher.

Shapes: N valid tokens, B utterances.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from raykd.config.schedule import ScheduleConfig, Temperature, Weight
from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.part import Live
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.targets.target import TEACHER
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import STUDENT, Chunk, Term, TokenTerm
from raykd.parts.updates.self_teacher import SelfTeacher, Snapshot
from raykd.parts.updates.update import Update

if TYPE_CHECKING:
    from raykd.parts.worker import Worker

_SELF = "self"
_LEAD = "teacher_lead"
_FLOOR = 0.01
"""Where an exponential decay to 0 ends, as a share of its start, before it lets go: it never arrives by itself."""


class TeacherLead(TokenTerm):
    """How much likelier the label is to the teacher than to the student: log p_T(label) - log p_S(label). A metric.

    Below 0 the student has overtaken its teacher on what it is trained on.
    """

    kind: Literal["teacher_lead"] = "teacher_lead"
    only_measured = True
    contexts: Literal["gold"] = "gold"
    """Only where there are labels."""
    target: str = TEACHER
    """The teacher."""

    def targets(self) -> tuple[str, ...]:
        """The teacher."""
        return (self.target,)

    def values(self, at: Chunk) -> Tensor:
        """See `TokenTerm`."""
        return (at.of_labels(self.target) - at.of_labels(STUDENT))[at.tokens]


class TrustedKl(Kl):
    """KL that counts less where the teacher does worse than the student: each token's value times sigmoid(kappa · lead), with
    the lead log p_T(label) - log p_S(label).

    Where both do alike, half of it counts. Ours; it is our reading of what "adaptive" may mean in FastWhisper.
    """

    kind: Literal["trusted_kl"] = "trusted_kl"  # type: ignore[assignment]
    trust: Literal["token", "sentence", "batches"] = "token"
    """What the lead is taken of: each token, the mean of each sentence, or the mean of recent batches."""
    kappa: float = Field(1.0, gt=0)
    """How sharply trust follows the lead."""
    memory: float = Field(0.95, ge=0, lt=1)
    """For `batches`: what the running mean keeps of itself at each step. It needs a term `teacher_lead`."""

    def build(self, on: "Worker") -> Live | None:
        """The running mean."""
        return RecentLead(self.memory, self.name) if self.trust == "batches" else None

    def target_temperatures(self) -> tuple[float | ScheduleConfig, ...]:
        """Also 1, for the lead."""
        return (self.target_temperature, 1.0)

    def token_weights(self, at: Chunk) -> Tensor:
        """See `TokenTerm`."""
        if isinstance(at.live, RecentLead):
            lead_N = at.live.mean.to(at.labels_N.device).expand(len(at.labels_N))
        else:
            lead_N = at.of_labels(self.target) - at.of_labels(STUDENT)
            lead_N = (_by_sentence(lead_N, at.batch.utterance_N) if self.trust == "sentence" else lead_N)[at.tokens]
        return (self.kappa * lead_N).sigmoid()


class RecentLead(Live):
    """The teacher's lead over recent batches; it begins at 0, where half of the divergence counts."""

    def __init__(self, memory: float, term: str | None) -> None:
        """`term`: the name of the one that asks for it."""
        self._memory, self._term = memory, term
        self.mean = torch.zeros((), dtype=torch.float64)

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        """Take in the batch's mean, which all workers know.

        Raises:
            UserError: no term measures it.
        """
        if _LEAD in means:
            self.mean = self._memory * self.mean + (1 - self._memory) * means[_LEAD]
        elif self._term in means:
            raise UserError(
                f"objective.terms: trusted_kl with trust: batches follows a term {{kind: {_LEAD}, name: {_LEAD}}} of the same "
                "weight; add it"
            )

    def state(self) -> dict[str, Tensor]:
        """The mean."""
        return {"mean": self.mean}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The mean."""
        self.mean = state["mean"].to("cpu", torch.float64)


def _by_sentence(values_N: Tensor, utterance_N: Tensor) -> Tensor:
    """Each token's sentence's mean."""
    sentences = int(utterance_N.max()) + 1 if len(utterance_N) else 0
    sums_B, counts_B = values_N.new_zeros(2, sentences)
    sums_B.index_add_(0, utterance_N, values_N)
    counts_B.index_add_(0, utterance_N, torch.ones_like(values_N))
    return (sums_B / counts_B.clamp(min=1))[utterance_N]


class AskdRecipe(Recipe):
    """FastWhisper's adaptive self-knowledge distillation (Lee et al. 2026, arXiv 2601.19919):
    lambda_ce · CE + alpha(u) · KL(teacher ‖ student) + beta(u) · KL(self-teacher ‖ student), u the share of training done.

    Only the abstracts were at hand. The paper's: the dependence on the teacher falls as training goes on, and a phase of
    self-distillation follows. Ours: everything else, which is every number and choice below. Both divergences have both sides
    at the temperature, times its square.

    Three readings: with the defaults, two phases with the best student of the first as the teacher of the second; with
    `decay: linear, switch: 1, rise: linear, self_teacher: {kind: ema}`, a target that goes over from the teacher to an average
    of the student; with `trust: token`, a teacher that is left aside where it is worse.
    """

    recipe: Literal["askd"] = "askd"
    lambda_ce: Weight = 1.0
    """Weight of the labels' cross-entropy: a number or a schedule."""
    alpha: float = Field(1.0, ge=0)
    """Weight of the teacher at the start."""
    alpha_end: float = Field(0.0, ge=0)
    """Its weight from `switch` on. At 0 the teacher is then neither run nor in memory."""
    decay: Literal["constant", "linear", "cosine", "exponential", "step"] = "cosine"
    """The way from `alpha` to `alpha_end`. `constant`: it stays at `alpha`; `step`: it does so up to `switch`; `exponential`
    towards 0 goes to a hundredth and then lets go."""
    switch: float = Field(0.6, gt=0, le=1)
    """Share of training after which the teacher has `alpha_end` and the self-teacher `beta`."""
    trust: Literal["none", "token", "sentence", "batches"] = "none"
    """Whether the teacher counts less where it does worse than the student on the labels: nowhere, by token, by sentence, or as
    a whole on recent batches (`terms: trusted_kl`). `teacher_lead` is then a metric."""
    kappa: float = Field(1.0, gt=0)
    """How sharply `trust` follows the lead."""
    beta: float = Field(0.5, ge=0)
    """Weight of the self-teacher in the end; 0: there is none."""
    rise: Literal["step", "linear", "cosine"] = "step"
    """When the self-teacher comes: all at once at `switch`, or on the way there as a linear or cosine `decay` falls."""
    self_teacher: Update = Snapshot(choose="best")
    """What copy of the student it is: `snapshot` (`best` or `last`, `every_epochs`; `at` is `switch` unless given), `ema`, or
    `previous_epoch`."""
    temperature: Temperature = 2.0
    """Of both sides of both divergences."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Of the cross-entropy."""

    @field_validator("self_teacher")
    @classmethod
    def _copies_the_student(cls, update: Update) -> Update:
        if update.kind not in {"snapshot", "ema", "previous_epoch"}:
            raise ValueError(f"must be snapshot, ema or previous_epoch (got {update.kind!r})")
        return update

    @model_validator(mode="after")
    def _possible(self) -> "AskdRecipe":
        if self.decay != "constant" and self.alpha_end > self.alpha:
            raise ValueError(
                f"alpha_end ({self.alpha_end:g}) must be at most alpha ({self.alpha:g}): the teacher's weight falls"
            )
        if self.switch == 1 and self.beta and self.rise == "step":
            raise ValueError("with switch: 1 the self-teacher never comes; take rise: linear or cosine, or beta: 0")
        return self

    def method(self) -> Method:
        """Two or three terms, a metric where trust wants it, and the self-teacher."""
        temperatures = {"student_temperature": self.temperature, "target_temperature": self.temperature}
        alpha, beta = self._alpha(), self._beta()
        terms: list[Term] = [Ce(weight=self.lambda_ce, label_smoothing=self.label_smoothing)]
        if self.trust == "none":
            terms.append(Kl(name="kl_teacher", weight=alpha, **temperatures))
        else:
            terms.append(TrustedKl(name="kl_teacher", weight=alpha, trust=self.trust, kappa=self.kappa, **temperatures))
            terms.append(TeacherLead(name=_LEAD, weight=alpha))
        if not self.beta:
            return Method(terms=tuple(terms))
        terms.append(Kl(name="kl_self", target=_SELF, weight=beta, **temperatures))
        return Method(terms=tuple(terms), targets={_SELF: SelfTeacher(update=self._update())})

    def _alpha(self) -> float | ScheduleConfig:
        start, end = self.alpha, self.alpha_end
        if self.decay == "constant" or start == end:
            return start
        if self.decay == "step":
            return ScheduleConfig(kind="step", start=start, end=end, begin=self.switch)
        if self.decay == "exponential" and end == 0:
            return ScheduleConfig(kind="exponential", start=start, end=_FLOOR * start, until=self.switch, after=0.0)
        return ScheduleConfig(kind=self.decay, start=start, end=end, until=self.switch)

    def _beta(self) -> ScheduleConfig:
        if self.rise == "step":
            return ScheduleConfig(kind="step", start=0.0, end=self.beta, begin=self.switch)
        return ScheduleConfig(kind=self.rise, start=0.0, end=self.beta, until=self.switch)

    def _update(self) -> Update:
        """A snapshot is taken at the switch, unless it says when."""
        update = self.self_teacher
        if isinstance(update, Snapshot) and "at" not in update.model_fields_set and self.switch < 1:
            return update.model_copy(update={"at": self.switch})
        return update
