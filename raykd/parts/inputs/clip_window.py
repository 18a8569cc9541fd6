"""A student that hears its clip and not 30 s.

Shapes: B utterances, M mel channels, F frames.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from raykd.data.batches import Batch
from raykd.parts.clock import Clock, draws
from raykd.parts.inputs.input import Input, LiveInput, LossGradient

if TYPE_CHECKING:
    from transformers import WhisperConfig

    from raykd.parts.worker import Worker


class ClipWindow(Input):
    """The student's encoder computes the positions of the longest clip of the global batch and a margin; targets hear the whole
    window.

    After futo-org/whisper-acft: untrained, a decoder loops on fewer positions than it is used to; trained with a margin that
    changes, it is level. There the margin is drawn from ±64 positions around a clip's end; ours is never negative, and some
    batches keep the whole window, so that the plain 30 s go on working. Margin and window follow from (seed, step), so any
    number of workers hears the same.
    """

    kind: Literal["clip_window"] = "clip_window"
    margin: int = Field(32, ge=0)
    """Encoder positions of 20 ms after the clip's end, at inference and in the middle of training's."""
    jitter: int = Field(32, ge=0)
    """In training the margin is drawn from as many positions fewer (not below 0) to as many more."""
    whole_share: float = Field(0.25, ge=0, le=1)
    """Share of the global batches that keep the whole window."""

    def reaches_targets(self) -> bool:
        """They hear the whole window."""
        return False

    def build(self, on: "Worker") -> "LiveClipWindow":
        """See `LiveClipWindow`."""
        return LiveClipWindow(self, on.student.config)


class LiveClipWindow(LiveInput):
    """Cuts the student's mel."""

    def __init__(self, config: ClipWindow, dimensions: "WhisperConfig") -> None:
        self._config, self._dimensions = config, dimensions

    def apply(self, batch: Batch, loss_gradient: LossGradient, clock: Clock) -> Batch:
        """See `LiveInput`."""
        from raykd.models.window import clip_frames

        config, draw = self._config, draws(clock.seed, clock.step, "clip window")
        if draw.random() < config.whole_share:
            return batch
        margin = int(draw.integers(max(0, config.margin - config.jitter), config.margin + config.jitter, endpoint=True))
        frames = clip_frames(self._dimensions, batch.longest_frames, margin)
        whole_BMF = batch.mel_BMF if batch.teacher_mel_BMF is None else batch.teacher_mel_BMF
        return batch.changed(mel_BMF=batch.mel_BMF[..., :frames], teacher_mel_BMF=whole_BMF)
