"""A new student with random weights."""

from typing import TYPE_CHECKING, Literal

from raykd.config.models import ScratchConfig
from raykd.parts.students.student import Student

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor


class Scratch(ScratchConfig, Student):
    """A new Whisper with random weights and the real multilingual vocabulary.

    `{init: scratch, scratch: {width: 128}}` is another way to write it. Its encoder trains whatever `freeze_encoder` says:
    random features teach nothing.
    """

    kind: Literal["scratch"] = "scratch"

    @property
    def origin(self) -> str:
        """Random weights."""
        return "scratch"

    def started_from(self) -> str:
        """Random weights."""
        return "random weights"

    def make(self, teacher: "WhisperForConditionalGeneration | None", seed: int) -> "WhisperForConditionalGeneration":
        """See `Student`."""
        from raykd.models.demo import new_whisper

        return new_whisper(self, seed)

    def freeze(self, model: "WhisperForConditionalGeneration") -> None:
        """All of it trains but the encoder's sinusoidal positions."""
        model.requires_grad_(True)
        model.model.encoder.embed_positions.requires_grad_(False)

    def processor(self, teacher: str | None, revision: str | None) -> "WhisperProcessor":
        """Whisper's multilingual tokenizer with a feature extractor of the model's window."""
        from raykd.models.demo import demo_processor

        return demo_processor(self)

    def dimensions(self, teacher: "WhisperConfig | None") -> "WhisperConfig":
        """As asked for."""
        from raykd.models.demo import scratch_config

        return scratch_config(self)
