"""What a model says about a batch.

Shapes: B utterances, U label positions, N valid tokens, D width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from raykd.data.batches import Batch
from raykd.parts.distribution import TokenDistribution

HIDDEN_STATES = "hidden_states"
"""Name of the decoder's states after the embedding and after each layer: a tuple of states_BUD, layers + 1 of them."""
ENCODER_STATES = "encoder_states"
"""Name of the encoder's last states_BSD."""


@dataclass(frozen=True)
class Outputs:
    """Of the student or of a target, for one micro-batch."""

    distribution: TokenDistribution | None = None
    """Over the next token at the valid positions, a constant; None for the student, whose distribution terms see in chunks."""
    auxiliary: Mapping[str, Any] = field(default_factory=dict)
    """What terms asked for beside it, by name: `hidden_states`, `encoder_states`, or what the model's part names."""
    hidden_ND: Tensor | None = None
    """The last states at the valid positions: the student's, before its output head."""


def decoded(decoder: Any, batch: Batch, states_BSD: Tensor, wanted: frozenset[str]) -> tuple[Tensor, dict[str, Any]]:
    """hidden_ND that a decoder has at the valid positions, and what is wanted beside them (`Outputs.auxiliary`)."""
    said = decoder(
        input_ids=batch.decoder_input_BU,
        encoder_hidden_states=states_BSD,
        use_cache=False,
        output_hidden_states=HIDDEN_STATES in wanted,
    )
    auxiliary = {HIDDEN_STATES: said.hidden_states, ENCODER_STATES: states_BSD}
    return said.last_hidden_state.flatten(0, 1)[batch.valid_N], auxiliary
