"""The teacher and the student."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from raykd.config.base import Section, wrong

DType = Literal["auto", "float32", "bfloat16"]


class TeacherConfig(Section):
    """The model that teaches."""

    model: str
    """Hub id such as `openai/whisper-large-v2`, a local folder in Hugging Face format, or a raykd config (`.yaml`, relative to
    this one) whose student becomes the teacher: it is trained first, once, and cached."""
    revision: str | None = None
    dtype: DType = "auto"
    """Weights' type while teaching; auto: bfloat16 on GPUs that have it, float32 elsewhere."""
    sharded: bool = False
    """Spread the teacher's weights over the workers (ZeRO-3 inference) instead of a copy on each."""

    @property
    def trained_by_raykd(self) -> bool:
        """Whether `model` is a raykd config."""
        return self.model.endswith((".yaml", ".yml"))


class ScratchConfig(Section):
    """Dimensions of a new Whisper with random weights and the real multilingual vocabulary (51 865 tokens)."""

    width: int = Field(128, ge=16, multiple_of=2)
    heads: int = Field(4, ge=1)
    ffn: int = Field(512, ge=16)
    encoder_layers: int = Field(2, ge=1)
    decoder_layers: int = Field(2, ge=1)
    window_s: float = Field(5.0, gt=0, le=30, multiple_of=1)
    """Longest utterance, in whole seconds."""
    max_label_tokens: int = Field(64, ge=8, le=448)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_fit(self) -> "ScratchConfig":
        if self.width % self.heads:
            raise wrong(f"must be a divisor of width, {self.width} (got {self.heads})", "heads")
        return self


def _each_once(layers: int | tuple[int, ...]) -> int | tuple[int, ...]:
    if isinstance(layers, tuple) and len(set(layers)) < len(layers):
        raise ValueError(f"a layer is listed twice (got {list(layers)})")
    return layers


Layers = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)],
    AfterValidator(_each_once),
]


class StudentConfig(Section):
    """The model that learns: made from the teacher, taken from a hub id or folder, or new."""

    init: str = "teacher"
    """`teacher`, `scratch`, or a hub id or local folder."""
    revision: str | None = None
    encoder_layers: Layers | None = None
    """With init=teacher: how many teacher layers, evenly spaced with first and last kept, or which (from 0). None: all."""
    decoder_layers: Layers | None = 2
    freeze_encoder: bool = True
    """Keep the encoder as it is; a complete frozen encoder is shared with the teacher's and runs once."""
    scratch: ScratchConfig = ScratchConfig()
    gradient_checkpointing: bool = False
