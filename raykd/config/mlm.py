"""The masked language model: its size, and how much of a text is masked. How it teaches: `parts.targets.mlm`."""

from typing import Annotated

from pydantic import Field

from raykd.config.base import Mark, Section


class MlmConfig(Section):
    """A bidirectional LSTM over Whisper's tokens. The defaults are the published model: 62.26 M parameters."""

    width: int = Field(512, ge=8)
    """Of the embeddings and of the states of each direction."""
    layers: int = Field(6, ge=1)
    """Bidirectional LSTM layers."""
    tokenizer: Annotated[str | None, Mark.PATH_IF_THERE] = None
    """Hub id or folder of a Whisper whose vocabulary it speaks; None: the 51 865 tokens of openai/whisper-tiny to -large-v2."""
    mask_token: str = "<|uz|>"
    """Token put where one is masked: that of a language that the text is not in."""
    mask_share: float | None = Field(None, gt=0, lt=1)
    """Share of a segment's positions masked at once; None: exactly one position, as published."""
