"""The masked language model: its size, how it is trained, and how it teaches."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raykd.config.base import Section
from raykd.config.models import DType


class MlmConfig(Section):
    """A bidirectional LSTM over Whisper's tokens. The defaults are the published model: 62.26 M parameters."""

    width: int = Field(512, ge=8)
    layers: int = Field(6, ge=1)
    tokenizer: str | None = None
    """Hub id or folder of a Whisper whose vocabulary it speaks; None: the 51 865 tokens of openai/whisper-tiny to -large-v2."""
    mask_token: str = "<|uz|>"
    """Token put where one is masked: that of a language that the text is not in."""
    mask_share: float | None = Field(None, gt=0, lt=1)
    """Share of a segment's positions masked at once; None: exactly one position, as published."""


class MlmTeacherConfig(Section):
    """A masked language model as a teacher. A string stands for its `model`."""

    model: str
    """Folder of a masked language model, or a config of `raykd.train_mlm` (`.yaml`, relative to this one): it is trained first,
    once, and cached."""
    positions: Literal["exact", "fast", "word"] = "exact"
    """exact: each position is predicted with itself masked and no other, as published. fast: every `passes`-th position is
    masked at once, another function that needs only `passes` passes. word (ours): the rest of the position's word is masked
    too, so that the prediction is about the language and not about how a word goes on whose end is given."""
    passes: int = Field(8, ge=2)
    """For `fast`: passes over each batch, and the distance of two masks."""
    dtype: DType = "auto"
    """Weights' type while teaching; auto: bfloat16 on GPUs that have it. On CPUs always float32."""
    cache_mb: int = Field(1024, ge=0)
    """Memory of a worker for the predictions of texts that come again in the next epoch; 0: none."""

    @property
    def trained_by_raykd(self) -> bool:
        """Whether `model` is a raykd config."""
        return self.model.endswith((".yaml", ".yml"))


def _named_by_its_model(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


MlmTeacher = Annotated[MlmTeacherConfig, BeforeValidator(_named_by_its_model)]
