"""Parts that only tests have: what a user may write in a file of their own.

Shapes: B utterances, U label positions, D width, N valid tokens.
"""

import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from raykd.parts.clock import Clock
from raykd.parts.outputs import HIDDEN_STATES, Outputs
from raykd.parts.part import Live
from raykd.parts.rooms import add_parts
from raykd.parts.terms.term import Chunk, OutputTerm, TokenTerm
from raykd.parts.worker import Worker


class Hint(OutputTerm):
    """FitNets: the student's last states, through a matrix that learns too, come near the teacher's."""

    kind: Literal["hint"] = "hint"
    needs: ClassVar = frozenset({HIDDEN_STATES})

    def targets(self) -> tuple[str, ...]:
        return ("teacher",)

    def build(self, on: Worker) -> Live:
        live = Live()
        width = on.student.head_VD.shape[1]
        live.learner = nn.Linear(width, width, bias=False)
        nn.init.eye_(live.learner.weight)
        return live

    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Any, clock: Clock, live: Live | None) -> Tensor:
        assert live is not None
        assert live.learner is not None
        mine_ND, theirs_ND = (
            said.auxiliary[HIDDEN_STATES][-1].flatten(0, 1)[batch.valid_N].float() for said in (student, targets["teacher"])
        )
        return (live.learner(mine_ND) - theirs_ND).square().mean(-1).sum()


class Breaking(TokenTerm):
    """A value of 0 whose gradient is not finite at some steps."""

    kind: Literal["breaking"] = "breaking"
    steps: tuple[int, ...] = ()

    def values(self, at: Chunk) -> Tensor:
        zeros_N = at.student().log_NV[:, 0] * 0.0
        return zeros_N.sqrt() if at.clock.step in self.steps else zeros_N


class Counting(TokenTerm):
    """-log p of the labels, times the number of updates that it has been told of: a state."""

    kind: Literal["counting"] = "counting"

    def build(self, on: Worker) -> Live:
        return _Count()

    def values(self, at: Chunk) -> Tensor:
        assert isinstance(at.live, _Count)
        return -at.live.updates * at.student().log_NV.gather(1, at.labels_N[:, None]).squeeze(1)


class _Count(Live):
    def __init__(self) -> None:
        self.updates = torch.ones(())

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        self.updates += 0.5

    def state(self) -> dict[str, Tensor]:
        return {"updates": self.updates}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.updates.copy_(state["updates"])


add_parts(sys.modules[__name__])
