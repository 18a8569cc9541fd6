"""A Whisper as the training engine takes it: what trains, and a frozen encoder beside it.

Shapes: B utterances, S encoder positions, U label positions, N valid tokens, D width, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raykd.data.batches import Batch
from raykd.models.window import encoder_states
from raykd.parts.clock import Clock
from raykd.parts.encoder import FrozenEncoder
from raykd.parts.outputs import decoded

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


class Learner(nn.Module):
    """What trains, as the engine takes it: forward(batch, wanted, clock) gives hidden_ND at the valid positions and what is
    wanted. `clock` is None outside of training steps.
    """

    head_VD: Tensor
    """The output head."""
    config: Any = None
    """Its model's dimensions."""
    frozen_encoder: FrozenEncoder | None = None
    """What it hears with, where that does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: Callable[[], Any] | None = None
        """Where the engine has spread the weights over the workers: gives a copy that has them all."""

    def current(self) -> Any:
        """This module with all its weights as they are now, for forward passes outside of the engine.

        Collective under ZeRO 3: every worker must call it.
        """
        return self.whole() if self.whole else self

    def settle(
        self, device: torch.device, frozen_dtype: torch.dtype, compile_or_tell: Callable[[str], None] | None = None
    ) -> None:
        """Bring what does not train onto the device, and compile it (`parts.worker.Worker.compile_or_tell`)."""


class WhisperLearner(Learner):
    """The part of a student that trains. A frozen encoder stays outside: the engine never sees, shards or saves it."""

    def __init__(self, model: "WhisperForConditionalGeneration") -> None:
        super().__init__()
        encoder_trains = any(parameter.requires_grad for parameter in model.model.encoder.parameters())
        self.encoder: Any = model.model.encoder if encoder_trains else None
        self.decoder: Any = model.model.decoder
        self.head_VD = model.proj_out.weight
        """The output head: one parameter with the token embedding where they are tied."""
        self.frozen_encoder = None if encoder_trains else FrozenEncoder(model.model.encoder)
        self.generation = model.generation_config
        self.config = model.config

    def forward(
        self, batch: Batch, wanted: frozenset[str] = frozenset(), clock: Clock | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """hidden_ND at the valid positions, and what is wanted beside them (`parts.outputs.Outputs.auxiliary`)."""
        return decoded(self.decoder, batch, self.states(batch), wanted)

    def states(self, batch: Batch) -> Tensor:
        """states_BSD of the encoder; without autocast in float32, as the decoder's weights."""
        if self.frozen_encoder is None:
            return encoder_states(self.encoder, batch.mel_BMF)
        states_BSD = self.frozen_encoder.states(batch)
        return states_BSD if torch.is_autocast_enabled(states_BSD.device.type) else states_BSD.float()

    def settle(
        self, device: torch.device, frozen_dtype: torch.dtype, compile_or_tell: Callable[[str], None] | None = None
    ) -> None:
        """Bring the frozen encoder onto the device, unless it is a target's."""
        if self.frozen_encoder is not None:
            self.frozen_encoder.settle(device, frozen_dtype, compile_or_tell)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout and without gradients."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
