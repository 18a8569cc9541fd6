"""A frozen Whisper as a teacher.

Shapes: B utterances, M mel channels, F mel frames, S encoder positions, U label positions, N valid tokens, D width.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch

from raykd.config.base import Mark, trained_by_raykd
from raykd.config.models import DType
from raykd.data.batches import Batch
from raykd.models.precision import compute_dtype
from raykd.models.routing import speaking
from raykd.parts.distribution import HeadDistribution
from raykd.parts.encoder import FrozenEncoder
from raykd.parts.outputs import Outputs, decoded
from raykd.parts.targets.target import LiveTarget, Target

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

    from raykd.parts.worker import Worker


class WhisperTarget(Target):
    """A Whisper that teaches. The `teacher` section is one."""

    kind: Literal["whisper"] = "whisper"
    model: Annotated[str, Mark.WHISPER]
    """Hub id such as `openai/whisper-large-v2`, a local folder in Hugging Face format, or a raykd config (`.yaml`, relative to
    this one) whose student becomes the teacher: it is trained first, once, and cached."""
    revision: str | None = None
    """Of the hub id."""
    dtype: DType = "auto"
    """Weights' type while teaching; auto: bfloat16 where the hardware multiplies it, float32 elsewhere."""
    sharded: Annotated[bool, Mark.FREE] = False
    """Spread the weights over the workers (ZeRO-3 inference) instead of a copy on each."""

    learns: ClassVar[bool] = False
    """Whether it is another one at every step."""

    @property
    def trained_by_raykd(self) -> bool:
        """Whether `model` is a raykd config."""
        return trained_by_raykd(self.model)

    def trained_of(self, model: "WhisperForConditionalGeneration") -> int:
        """Parameters that train, of a teacher of this shape."""
        return 0

    def build(self, on: "Worker") -> LiveTarget:
        """The model on the device. A student whose frozen encoder is the same shares this one's."""
        return self.loaded(on)

    def loaded(self, on: "Worker") -> "WhisperTeacher":
        """See `build`."""
        from raykd.models.pruning import cut_to
        from raykd.models.whisper import load_whisper

        model = load_whisper(self.model, compute_dtype(self.dtype, on.device), self.revision)
        cut_to(model, on.kept_tokens)
        return WhisperTeacher(model, on, self.sharded)


class WhisperTeacher(LiveTarget):
    """A frozen Whisper's distribution over the valid positions of a batch.

    With `sharded`, its weights are spread over the workers by ZeRO-3 and gathered layer by layer.
    """

    def __init__(self, model: "WhisperForConditionalGeneration", on: "Worker", sharded: bool = False) -> None:
        self._model = model.requires_grad_(False).eval()
        self._sharded = sharded
        shared = on.student.frozen_encoder is not None and on.student.frozen_encoder.is_copy_of(model)
        self.encoder = FrozenEncoder(model.model.encoder, settled=sharded)
        if sharded:
            self._shard()
        else:
            model.model.decoder.to(on.device)
            model.proj_out.to(on.device)
            self.encoder.settle(on.device, compile_or_tell=on.compile_or_tell)
        if shared:
            on.student.frozen_encoder = self.encoder

    def _shard(self) -> None:
        from raykd.parts.deepspeed import prepare_deepspeed

        prepare_deepspeed()
        import deepspeed

        config = {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            "bf16": {"enabled": self._model.dtype == torch.bfloat16},
        }
        # The engine partitions the module's parameters in place and gathers them by hooks on the module's own forward.
        self._engine, *_ = deepspeed.initialize(model=self._model, config=config)

    @torch.no_grad()
    def outputs(self, batch: Batch, wanted: frozenset[str], others: Mapping[str, Outputs]) -> Outputs:
        """See `LiveTarget`. Logits are made chunk by chunk where they are needed."""
        states_BSD = self.encoder.states(batch, for_targets=True)
        decoder = self._model.model.decoder
        with speaking(decoder, batch.languages):
            hidden_ND, auxiliary = decoded(decoder, batch, states_BSD, wanted)
        return Outputs(HeadDistribution(hidden_ND, self._model.proj_out.weight), auxiliary, hidden_ND)

    def at_hand(self) -> AbstractContextManager[None]:
        """The output head's weight is whole on this worker."""
        if not self._sharded:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters([self._model.proj_out.weight])
