"""Terms over given hidden states and labels, and a target to measure them against, without a model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.data.batches import Batch
from raykd.parts.clock import Clock
from raykd.parts.distribution import TokenDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.recipes.recipe import Method, named
from raykd.parts.rooms import ROOMS
from raykd.parts.targets.target import LiveTarget, Target
from raykd.parts.terms.term import Term
from raykd.parts.worker import Worker
from raykd.training.method import LiveMethod
from raykd.training.objective import ActiveTerm, objective

NOW = Clock(step=0, steps=1)


def nobody(name: str) -> Tensor:
    """For a chunk whose terms do not ask what anybody thinks of the labels."""
    raise AssertionError(name)


@contextmanager
def no_targets(batch: Any, terms: Any) -> Iterator[dict[str, Outputs]]:
    """For a step whose terms are measured against nobody."""
    yield {}


def labelled(labels_BU: Tensor, sampled_B: Tensor | None = None) -> Batch:
    """A batch with nothing but labels; -100 where there is none."""
    labels_BU = labels_BU if labels_BU.dim() == 2 else labels_BU[None]
    return Batch([], [], torch.empty(0), labels_BU, labels_BU, 0.0, sampled_B=sampled_B)


def active(terms: Sequence[Term], clock: Clock = NOW) -> list[ActiveTerm]:
    """The terms at a step, each with a name of its own."""
    return [ActiveTerm(term, 0.0 if term.only_measured else clock.at(term.weight)) for term in named(terms)]


def saying(targets: Mapping[str, TokenDistribution]) -> dict[str, Outputs]:
    """Targets that say nothing but their distribution."""
    return {name: Outputs(distribution) for name, distribution in targets.items()}


def loss_and_sums(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    batch: Any,
    targets: Mapping[str, TokenDistribution],
    terms: Sequence[Term],
    chunk_tokens: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective of a batch, or of labels_N, and each term's sum by its name."""
    batch = labelled(batch) if isinstance(batch, Tensor) else batch
    weighed = active(terms)
    student = Outputs(hidden_ND=hidden_ND)
    loss, sums_K = objective(student, weight_VD, batch, saying(targets), weighed, NOW, chunk_tokens)
    return loss, dict(zip((one.name for one in weighed), sums_K.unbind(), strict=True))


class Noted(Target):
    """A target without a distribution that notes what becomes of it."""

    kind: Literal["noted"] = "noted"

    def build(self, on: Worker) -> "LiveNoted":
        return LiveNoted()


class LiveNoted(LiveTarget):
    """How often it was run."""

    def __init__(self) -> None:
        self.passes = 0

    def outputs(self, batch: Batch, wanted: frozenset[str], others: Mapping[str, Outputs]) -> Outputs:
        self.passes += 1
        return Outputs(auxiliary=dict(others))


def worker() -> Worker:
    """A worker with nothing on it, for parts that ask for nothing."""
    nothing: Any = None
    return Worker(torch.device("cpu"), nothing, nothing, dev_loss=lambda learner: 0.0)


def at_work(method: Method, start: Clock = NOW) -> LiveMethod:
    """A method whose teacher is a `Noted` unless it has another."""
    targets = {"teacher": Noted(), **method.targets}
    return LiveMethod(replace(method, terms=named(method.terms), targets=targets), worker(), start)


def with_names(text: str) -> str:
    """The text with the names of all parts of a room in place of `<terms>` and the like, as messages list them."""
    for room in ROOMS:
        text = text.replace(f"<{room.name}>", " or ".join(", ".join(room.parts).rsplit(", ", 1)))
    return text
