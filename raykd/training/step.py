"""What one micro-batch goes through: the student's forward pass with the objective inside, as one module for the engine.

Shapes: N valid tokens, D width, K terms.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from raykd.parts.clock import Clock
from raykd.parts.outputs import Outputs
from raykd.parts.students.learner import Learner
from raykd.parts.timing import part
from raykd.training.objective import ActiveTerm, ObjectiveHead, objective

TargetsOf = Callable[[Any, Sequence[ActiveTerm]], AbstractContextManager[Mapping[str, Outputs]]]
"""(micro-batch, terms) -> what the targets say that these are measured against: `LiveMethod.targets`."""


class Step(nn.Module):
    """What trains, with the objective inside `forward`, so that ZeRO-3 has the output head's weight gathered while it is used.

    The learner's forward(batch, wanted, clock) gives hidden_ND at the valid positions and what is wanted beside them;
    `head_VD` is its output head.
    """

    def __init__(
        self,
        learner: Learner,
        autocast: torch.dtype | None = None,
        others: Iterable[nn.Module] = (),
        heads: Sequence[nn.Parameter] = (),
    ) -> None:
        """`autocast`: None computes in float32 throughout. `others`: what terms and targets train beside the learner; `heads`:
        output heads among that.
        """
        super().__init__()
        self.learner: Any = learner
        self.others = nn.ModuleList(others)
        self.head = ObjectiveHead(learner.head_VD, others=heads)
        self.autocast = autocast

    def forward(self, batch: Any, targets_of: TargetsOf, terms: Sequence[ActiveTerm], clock: Clock) -> tuple[Tensor, Tensor]:
        """The weighted terms' part of the mean, and each term's sum (`training.objective.objective`).

        Targets are run here, too: one that learns is part of this module. Autocast is entered here and not around the engine,
        which switches an outer one off.
        """
        device = self.head.weight.device
        mixed = torch.autocast(device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)
        with targets_of(batch, terms) as targets, mixed:
            with part("student"):
                hidden_ND, auxiliary = self.learner(batch, wanted_by(terms), clock)
            with part("objective"):
                return self.head(Outputs(auxiliary=auxiliary, hidden_ND=hidden_ND), batch, targets, terms, clock)

    def loss_of(
        self, learner: Any, batch: Any, targets: Mapping[str, Outputs], terms: Sequence[ActiveTerm], clock: Clock
    ) -> Tensor:
        """The same loss outside of the engine, of a module with whole weights; no gradient for the output head."""
        with torch.autocast(learner.head_VD.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            hidden_ND, auxiliary = learner(batch, wanted_by(terms), clock)
            student = Outputs(auxiliary=auxiliary, hidden_ND=hidden_ND)
            return objective(student, learner.head_VD.detach(), batch, targets, terms, clock)[0]


def wanted_by(terms: Sequence[ActiveTerm]) -> frozenset[str]:
    """What these terms need beside distributions."""
    return frozenset[str]().union(*(active.term.needs for active in terms))


def trains(module: nn.Module) -> bool:
    """Whether any parameter of the module is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())
