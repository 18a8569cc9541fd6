"""Terms of an objective: what is measured, over which tokens, with which weight.

A term is a sum and a count. The mean is taken once, over the count of the global batch: all workers, all accumulated
micro-batches. Sources differ here by factors up to 50 000; a published weight is converted in the recipe that has it.

Shapes: N tokens (of a chunk of a batch's valid tokens), V vocabulary, K tokens and E = K + 1 events of a target that knows its
likeliest tokens only.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import field_validator, model_validator
from torch import Tensor

from raykd.config.schedule import ScheduleConfig, Temperature, Weight
from raykd.data.batches import Contexts
from raykd.parts.clock import Clock
from raykd.parts.distribution import TokenDistribution, TopKDistribution, log_softmax
from raykd.parts.outputs import Outputs
from raykd.parts.part import Live, Part, Room

TERMS_ROOM = Room("terms")
STUDENT = "student"
"""Stands for the student among the names of targets: for whoever learns from it."""


class Term(Part):
    """One term of the objective. Derive from `TokenTerm` or `OutputTerm`."""

    room: ClassVar = TERMS_ROOM
    needs: ClassVar[frozenset[str]] = frozenset()
    """Outputs beside the distribution that the student and the targets must give: `hidden_states`, or what a student names."""

    only_measured: ClassVar[bool] = False
    """Whether it is a metric and no part of the loss, wherever its weight is above 0."""

    kind: str
    name: str | None = None
    """Name in metrics (letters, digits and `_`); default: `kind`, made unique."""
    weight: Weight = 1.0
    """Weight in the objective: a number or a schedule. At 0 the term is not computed."""
    contexts: Contexts = "all"
    """Utterances that count, by what the decoder reads: `gold` labels, what the student itself has said (`sampled`), or all."""

    @field_validator("name")
    @classmethod
    def _names_a_metric(cls, name: str | None) -> str | None:
        if name and not (name.isascii() and name.replace("_", "").isalnum()):
            raise ValueError(f"must be letters, digits and `_` (got {name!r})")
        return name

    def targets(self) -> tuple[str, ...]:
        """Names of the targets that it is measured against; `student` where that is one."""
        return ()

    def runs(self) -> tuple[str, ...]:
        """Names of the targets that have to be run for it."""
        return tuple(name for name in self.targets() if name != STUDENT)

    def silent(self, batch: Any) -> bool:
        """Whether it has nothing to say about any utterance of a micro-batch, so that its targets need not be run for it."""
        return False

    def target_temperatures(self) -> tuple[float | ScheduleConfig, ...]:
        """At which it asks for its targets' distributions."""
        return (1.0,) if self.targets() else ()

    def count(self, batch: Any, live: Live | None = None) -> float:
        """What the sum over a micro-batch is divided by, in part: the global count is the sum over all micro-batches. `live` is
        what `build` gave."""
        return batch.n_valid(self.contexts)

    def of_mean(self, mean: float) -> float:
        """The term's value from the mean over the global batch; the mean itself, unless it is a function of that."""
        return mean


class OutputTerm(Term):
    """A term over what the models give beside their distributions (`needs`), by automatic differentiation."""

    @abstractmethod
    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Any, clock: Clock, live: Live | None) -> Tensor:
        """The sum over a micro-batch, a scalar with its graph; `live` is what `build` gave."""


class TokenTerm(Term):
    """A term over the student's distribution at each valid token. It runs in chunks of tokens.

    Write `values` in plain PyTorch: it is differentiated automatically.
    """

    of: str = STUDENT
    """Whose distribution it is that learns: the student's, or that of a target which learns (`kind: learning`). The names of
    the other keys call it the student all the same."""
    student_temperature: Temperature = 1.0
    """The student's logits are divided by this."""
    scale_by_temperature: bool = True
    """Multiply by the student temperature squared, which keeps gradients comparable (Hinton et al. 2015)."""

    @abstractmethod
    def values(self, at: "Chunk") -> Tensor:
        """values_N of the chunk's tokens, differentiable through `at.student(temperature)`."""

    def runs(self) -> tuple[str, ...]:
        """Also whoever learns."""
        return tuple(dict.fromkeys((*super().runs(), *({self.of} - {STUDENT}))))

    def token_weights(self, at: "Chunk") -> Tensor | None:
        """weights_N that the values are multiplied with, constant; None: 1. The count stays the number of tokens."""
        return None

    def scale(self, clock: Clock) -> float:
        """What the values are multiplied by: the student temperature squared, or 1."""
        return clock.at(self.student_temperature) ** 2 if self.scale_by_temperature else 1.0


class ClosedForm(TokenTerm):
    """A token term that knows its gradient. It costs one softmax for all terms of a temperature, where automatic
    differentiation would keep several tensors for each.
    """

    def values(self, at: "Chunk") -> Tensor:
        """The values without the gradient."""
        return self.values_and_gradient(at, None, 1.0)

    @abstractmethod
    def values_and_gradient(self, at: "Chunk", into_NV: Tensor | None, scale: float | Tensor) -> Tensor:
        """values_N; adds `scale` (a number, or scale_N1) times each value's gradient to `into_NV`.

        The gradient is that with respect to the student's logits divided by its temperature.
        """


class Divergence(ClosedForm):
    """A divergence between a target's distribution and the student's."""

    target: str = "teacher"
    """Which distribution: `teacher`, or a name in `objective.targets`."""
    target_temperature: Temperature = 1.0
    """The target's logits are divided by this."""

    @model_validator(mode="after")
    def _differ(self) -> "Divergence":
        if self.target == self.of:
            raise ValueError(f"target and of are both {self.of!r}: nothing diverges from itself")
        return self

    def targets(self) -> tuple[str, ...]:
        """The target."""
        return (self.target,)

    def target_temperatures(self) -> tuple[float | ScheduleConfig, ...]:
        """The target's."""
        return (self.target_temperature,)

    @abstractmethod
    def between(self, student: "LogProbs", target: "LogProbs", into_NV: Tensor | None, scale: float | Tensor) -> Tensor:
        """values_N of two distributions over the same events; adds to `into_NV` as `values_and_gradient` does."""

    def values_and_gradient(self, at: "Chunk", into_NV: Tensor | None, scale: float | Tensor) -> Tensor:
        """See `ClosedForm`. Of a target that knows its likeliest tokens only: over these and the tail (`over_events`)."""
        student = at.student(self.student_temperature)
        kept = at.kept_of(self.target)
        if kept is None:
            return self.between(student, at.target(self.target, self.target_temperature), into_NV, scale)
        tokens_NK, log_NE = kept.events(at.tokens, at.at(self.target_temperature))
        return over_events(self.between, student, tokens_NK, LogProbs(log_NE.to(at.dtype)), into_NV, scale)


class LogProbs:
    """log_NV of a distribution; the probabilities are computed when a term first asks for them."""

    def __init__(self, log_NV: Tensor) -> None:
        self.log_NV = log_NV

    @cached_property
    def probs(self) -> Tensor:
        """The probabilities, of shape NV."""
        return self.log_NV.exp()


class Chunk:
    """Some of a batch's valid tokens, and everybody's distribution over the next token there."""

    def __init__(
        self,
        logits_NV: Tensor,
        tokens: slice,
        batch: Any,
        labels_N: Tensor,
        targets: Mapping[str, TokenDistribution],
        clock: Clock,
        of_labels: Callable[[str], Tensor],
        of: str = STUDENT,
    ) -> None:
        self.of = of
        """Who learns: `student()` is its distribution."""
        self.tokens, self.batch, self.clock = tokens, batch, clock
        self.labels_N = labels_N[tokens]
        """The labels; where the decoder reads what the student has said (`batch.sampled_B`), the student's own next tokens."""
        self.dtype = logits_NV.dtype
        """Of the student's logits: float32, or float64 where its weights are."""
        self.live: Live | None = None
        """What the term's `build` gave."""
        self.of_labels = of_labels
        """log_N of the label's probability at every valid token of the micro-batch, not of the chunk alone, at temperature 1:
        a target's, by its name, or the student's, by `STUDENT`. A constant."""
        self._logits_NV: Tensor | None = logits_NV
        self._targets = targets
        self._memo: dict[tuple[str, float], LogProbs] = {}

    def at(self, number: float | ScheduleConfig) -> float:
        """The value of a number that may change over training."""
        return self.clock.at(number)

    def student(self, temperature: float | ScheduleConfig = 1.0) -> LogProbs:
        """The distribution of whoever learns, at a temperature."""
        return self._remembered(self.of, self.at(temperature))

    def target(self, name: str, temperature: float | ScheduleConfig = 1.0) -> LogProbs:
        """A target's distribution at a temperature; a constant. Name the target in `targets` of the term."""
        return self._remembered(name, self.at(temperature))

    def kept_of(self, name: str) -> TopKDistribution | None:
        """A target that knows its likeliest tokens only; None where it knows all."""
        target = self._targets[name]
        return target if isinstance(target, TopKDistribution) else None

    def with_logits(self, logits_NV: Tensor) -> "Chunk":
        """The same tokens and targets with other logits of the student."""
        other = Chunk.__new__(Chunk)
        other.__dict__.update(self.__dict__)
        other._logits_NV = logits_NV
        other._memo = {key: value for key, value in self._memo.items() if key[0] != self.of}
        return other

    def give_up_logits(self) -> Tensor:
        """The student's logits, whose memory the caller may write into: no other temperature can be asked for."""
        assert self._logits_NV is not None
        logits_NV, self._logits_NV = self._logits_NV, None
        return logits_NV

    def _remembered(self, name: str, temperature: float) -> LogProbs:
        key = (name, temperature)
        if key not in self._memo:
            if name != self.of:
                log_NV = self._targets[name].log_probs(self.tokens, temperature)
            else:
                assert self._logits_NV is not None
                log_NV = log_softmax(self._logits_NV, temperature)
            self._memo[key] = LogProbs(log_NV)
        return self._memo[key]


def over_events(
    between: Callable[[LogProbs, LogProbs, Tensor | None, float | Tensor], Tensor],
    student: LogProbs,
    tokens_NK: Tensor,
    target: LogProbs,
    into_NV: Tensor | None,
    scale: float | Tensor,
) -> Tensor:
    """`Divergence.between` over K tokens and the tail, all other tokens as one event.

    It is never more than the divergence over all tokens (data processing inequality). The tail's gradient is shared out among
    its tokens by the student's own probabilities: what they are to each other nothing is said about.

    Args:
        between: the divergence of two distributions over K + 1 events.
        student: over the whole vocabulary.
        tokens_NK: the tokens that are events of their own.
        target: over the K + 1 events, the tail last.
        into_NV: what the gradient with respect to the student's logits is added to.
        scale: of the gradient.
    """
    probs_NV = student.probs
    kept_NK = probs_NV.gather(1, tokens_NK)
    probs_NV.scatter_(1, tokens_NK, 0.0)  # now the tail's alone: a sum of these loses no digits, 1 - sum of the others would
    tail_N1 = probs_NV.sum(-1, keepdim=True).clamp_(min=torch.finfo(probs_NV.dtype).tiny)
    log_NE = torch.cat((student.log_NV.gather(1, tokens_NK), tail_N1.log()), -1)
    gradient_NE = None if into_NV is None else torch.zeros_like(log_NE)
    values_N = between(LogProbs(log_NE), target, gradient_NE, scale)
    if into_NV is not None and gradient_NE is not None:
        into_NV.addcmul_(probs_NV, gradient_NE[:, -1:] / tail_N1)
        into_NV.scatter_add_(1, tokens_NK, gradient_NE[:, :-1])
    probs_NV.scatter_(1, tokens_NK, kept_NK)
    return values_N


def add_scaled(into_NV: Tensor, what_NV: Tensor, scale: float | Tensor) -> None:
    """into += scale * what, for a number or scale_N1."""
    if isinstance(scale, Tensor):
        into_NV.addcmul_(what_NV, scale)
    else:
        into_NV.add_(what_NV, alpha=scale)
