"""What a teacher says (`python -m raykd.label`): transcripts, and the answers that a cache keeps."""

from typing import Annotated, Literal

from pydantic import Field

from raykd.config.base import Mark, Section


class LabelConfig(Section):
    """How `python -m raykd.label` transcribes: greedily, with the config's teacher."""

    splits: tuple[str, ...] = Field(("train",), min_length=1)
    """Splits that are labelled. Utterances without a transcript are, whatever their split."""
    timestamps: bool = False
    """Have the teacher say when its sentences begin and end, by Whisper's rule for timestamps."""
    max_new_tokens: int = Field(225, ge=1)
    """Longest transcript, in tokens."""
    batch_size: Annotated[int, Mark.FREE] = Field(16, ge=1)
    """Utterances of like length that are decoded at once."""
    workers: Annotated[int | None, Mark.FREE] = Field(None, ge=1)
    """Ray actors with a teacher each; None: one a GPU, else one a core up to two."""


class CacheConfig(Section):
    """How `python -m raykd.label --cache topk|encoder|both` keeps the teacher's answers."""

    k: int = Field(50, ge=1)
    """Likeliest tokens kept at each label position, 4 bytes each; what all others have together is kept beside them.
    With 50 the gradient of KL is off by 0.4 %, of JS by 2 %; that of reverse KL is by a third: keep encoder states for it."""
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0, 2.0), min_length=1)
    """Temperatures that an objective may give the teacher, 4 bytes each at each label position."""
    views: int = Field(1, ge=1)
    """Ways that random changes of the speech (SpecAugment) are kept; epochs take them in turn. 1 without such changes."""
    states: Literal["float16", "int8"] = "float16"
    """How encoder states are kept: 2 bytes a number, or 1 with a scale for each channel."""
    batch_size: Annotated[int, Mark.FREE] = Field(16, ge=1)
    """Utterances at once, and in one file."""
    workers: Annotated[int | None, Mark.FREE] = Field(None, ge=1)
    """Ray actors with a teacher each; None: one a GPU, else one a core up to two."""
