"""The distance of the decoder's states from a target's.

Shapes: B utterances, U label positions, N valid tokens, D width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.outputs import HIDDEN_STATES, Outputs
from raykd.parts.part import Live
from raykd.parts.terms.term import OutputTerm


class HiddenStates(OutputTerm):
    """Mean squared difference of the decoder's states after the embedding and after each layer, at the valid tokens.

    With a copy of the student on whole windows as the target, this is what futo-org/whisper-acft (`finetune.ipynb`) trains
    short windows with; there over all states of two equal decoders. Ours: where the target has more layers, each of the
    student's belongs to the one at the same height, first to first and last to last; padding does not count.
    """

    kind: Literal["hidden_states"] = "hidden_states"
    needs: ClassVar[frozenset[str]] = frozenset({HIDDEN_STATES})
    target: str = "teacher"
    """Whose states: of the student's width."""

    def targets(self) -> tuple[str, ...]:
        """The target."""
        return (self.target,)

    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Any, clock: Clock, live: Live | None) -> Tensor:
        """See `OutputTerm`.

        Raises:
            UserError: the target is of another width, or gives no states.
        """
        mine, theirs = student.auxiliary[HIDDEN_STATES], targets[self.target].auxiliary.get(HIDDEN_STATES)
        if theirs is None:
            raise UserError(f"objective: hidden_states: the target `{self.target}` has no decoder states; take a Whisper")
        if mine[0].shape[-1] != theirs[0].shape[-1]:
            widths = f"{theirs[0].shape[-1]}, the student's is {mine[0].shape[-1]}"
            raise UserError(f"objective: hidden_states: the width of `{self.target}` is {widths}; only equal widths compare")
        mask_N = batch.mask_N(self.contexts)
        kept_N = batch.valid_N if mask_N is None else batch.valid_N[mask_N]
        layers = len(mine) - 1
        heights = [round(layer * (len(theirs) - 1) / layers) for layer in range(layers + 1)]
        means_N = [
            functional.mse_loss(_at(states_BUD, kept_N), _at(theirs[height], kept_N), reduction="none").mean(-1)
            for states_BUD, height in zip(mine, heights, strict=True)
        ]
        return torch.stack(means_N).mean(0).sum()


def _at(states_BUD: Tensor, kept_N: Tensor) -> Tensor:
    """states_ND at some positions, in float32 or wider."""
    states_ND = states_BUD.flatten(0, 1)[kept_N]
    return states_ND if states_ND.dtype == torch.float64 else states_ND.float()
