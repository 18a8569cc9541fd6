"""A student that starts as large as its teacher and grows smaller while it trains.

Shapes: F channels of a feed-forward block.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from raykd.config.base import wrong
from raykd.data.batches import Batch
from raykd.errors import UserError
from raykd.models.shrinking import CompactedLinear, Units, shrunk, units_of, with_masks
from raykd.parts.clock import Clock
from raykd.parts.students.layer_copy import LayerCopy, Layers
from raykd.parts.students.learner import WhisperLearner

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

ROW_NORMS = "row_norms"
"""Name of the norms of the compactors' rows: a list of norms_F, one a layer."""
Size = Annotated[
    Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)], Field(union_mode="left_to_right")
]


class Shrinking(LayerCopy):
    """The teacher's layers, whose channels, heads and width are left aside one after the other while it trains, as an update
    says (`homodistil`, `cdd`). The student that is given away is a plain Whisper with what was kept, weight by weight.

    Whisper's architecture has one size of the feed-forward blocks for each stack, one number of heads for both, and a width
    that is heads times the size of a head: all layers of a stack keep as many. The size of a head, the vocabulary and the
    numbers of layers and positions stay.
    """

    kind: Literal["shrinking"] = "shrinking"  # type: ignore[assignment]
    decoder_layers: Layers | None = None
    """How many of the teacher's layers, or which. None: all."""
    decoder_ffn: Size | None = None
    """Channels of each feed-forward block of the decoder at the end, or the share of them; None: all."""
    encoder_ffn: Size | None = None
    """Likewise of the encoder, which then has to train (`freeze_encoder: false`)."""
    heads: Size | None = None
    """Heads of each attention at the end, in both stacks, and with them the width; the encoder then has to train."""
    compactors: bool = False
    """Whether each feed-forward block that shrinks has a compactor: a square matrix behind its first layer whose rows learn
    which channels matter (`cdd`). They are multiplied into that layer at the end."""

    @model_validator(mode="after")
    def _shrinks(self) -> "Shrinking":
        if self.decoder_ffn is None and self.encoder_ffn is None and self.heads is None:
            raise wrong("give the size that something has at the end: decoder_ffn, encoder_ffn or heads", "decoder_ffn")
        of_encoder = "encoder_ffn" if self.encoder_ffn is not None else "heads" if self.heads is not None else None
        if of_encoder and self.freeze_encoder:
            raise wrong("changes the encoder, which has to train: set freeze_encoder: false", of_encoder)
        if self.gradient_checkpointing and self.compactors:
            raise wrong("not possible with compactors, whose norms are read after the forward pass", "gradient_checkpointing")
        return self

    def started_from(self) -> str:
        """The layers, and that they shrink."""
        return f"{super().started_from()}, shrinking"

    def make(self, teacher: "WhisperForConditionalGeneration | None", seed: int) -> "WhisperForConditionalGeneration":
        """See `Student`.

        Raises:
            UserError: a size above the teacher's.
        """
        model = super().make(teacher, seed)
        return with_masks(model, *self._sizes(model.config), self.compactors)

    def dimensions(self, teacher: "WhisperConfig | None") -> "WhisperConfig | None":
        """As it starts: the teacher's, with the layers that are kept."""
        made = super().dimensions(teacher)
        if made is not None:
            self._sizes(made)
        return made

    def _sizes(self, config: "WhisperConfig") -> tuple[dict[str, int], int | None]:
        """Channels by stack, and heads, at the end; what keeps its size is left out, or None."""
        sizes = {"encoder": (self.encoder_ffn, config.encoder_ffn_dim), "decoder": (self.decoder_ffn, config.decoder_ffn_dim)}
        ffn = {stack: _size(f"{stack}_ffn", given, of) for stack, (given, of) in sizes.items() if given is not None}
        if self.heads is None:
            return ffn, None
        if config.encoder_attention_heads != config.decoder_attention_heads:
            raise UserError("student.heads: the teacher's encoder and decoder have not the same number; leave it out")
        return ffn, _size("heads", self.heads, config.decoder_attention_heads)

    def finished(self, model: "WhisperForConditionalGeneration") -> "WhisperForConditionalGeneration":
        """A plain Whisper of what was kept."""
        return shrunk(model)

    def learner(self, model: "WhisperForConditionalGeneration") -> WhisperLearner:
        """See `Student`."""
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return ShrinkingLearner(model)


class ShrinkingLearner(WhisperLearner):
    """A student that can leave units aside."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.units: list[Units] = units_of(model)
        own = dict(model.named_parameters())
        self.parts_of_units = {name: own[name] for one in self.units for name, _ in one.places}
        """The parameters that make up units, by the names that `units` have."""

    @property
    def compacted(self) -> list[CompactedLinear]:
        """The layers with compactors."""
        return [module for module in self.modules() if isinstance(module, CompactedLinear)]

    def forward(
        self, batch: Batch, wanted: frozenset[str] = frozenset(), clock: Clock | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """See `Learner`, with `ROW_NORMS` among what can be wanted."""
        hidden_ND, auxiliary = super().forward(batch, wanted)
        if ROW_NORMS in wanted:
            auxiliary[ROW_NORMS] = [layer.row_norms_F for layer in self.compacted]
        return hidden_ND, auxiliary


def _size(key: str, given: int | float, of: int) -> int:
    size = given if isinstance(given, int) else max(1, round(given * of))
    if size > of:
        raise UserError(f"student.{key}: {size} asked for, but the teacher has {of}; give at most that")
    return size
