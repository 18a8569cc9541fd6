"""Sizes and types of models, for the parts that make them."""

from typing import Literal

from pydantic import Field, model_validator

from raykd.config.base import Section, wrong

DType = Literal["auto", "float32", "bfloat16"]


class ScratchConfig(Section):
    """Dimensions of a new Whisper with random weights and the real multilingual vocabulary (51 865 tokens)."""

    width: int = Field(128, ge=16, multiple_of=2)
    """Of the hidden states."""
    heads: int = Field(4, ge=1)
    """Attention heads; a divisor of the width."""
    ffn: int = Field(512, ge=16)
    """Width of the feed-forward layers."""
    encoder_layers: int = Field(2, ge=1)
    """Layers of the encoder."""
    decoder_layers: int = Field(2, ge=1)
    """Layers of the decoder."""
    window_s: float = Field(5.0, gt=0, le=30, multiple_of=1)
    """Longest utterance, in whole seconds."""
    max_label_tokens: int = Field(64, ge=8, le=448)
    """Longest label sequence, prefix and end included."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of all layers. It follows from seed, step and worker: another number of workers draws others."""

    @model_validator(mode="after")
    def _heads_fit(self) -> "ScratchConfig":
        if self.width % self.heads:
            raise wrong(f"must be a divisor of width, {self.width} (got {self.heads})", "heads")
        return self
