"""One student step: teacher and student see the same decoder input ids, the objective sees valid tokens only.

Shapes: B utterances, M mel channels, F mel frames, S encoder positions, U label positions, T positions
of a text, N valid tokens, D width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from raykd.data.batches import IGNORED_LABEL, Batch, TextBatch
from raykd.models.masked_lm import MaskedLm
from raykd.objectives.distribution import HeadDistribution, TokenDistribution
from raykd.objectives.objective import ObjectiveHead
from raykd.objectives.recipes import ResolvedTerm, targets_needed
from raykd.training.engine import Engine, prepare_deepspeed
from raykd.training.mlm_teacher import MlmTeacher


class StudentStep(nn.Module):
    """The part of the student that trains, with the objective inside, as one module for the training engine.

    The objective runs inside `forward` so that ZeRO-3 has the output head's weight gathered while it is used. A frozen
    encoder stays outside: the engine never sees, shards or saves it.
    """

    def __init__(self, student: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.encoder = student.model.encoder if trains(student.model.encoder) else None
        self.decoder = student.model.decoder
        self.head = ObjectiveHead(student.proj_out.weight)

    def forward(
        self,
        audio: Tensor,
        decoder_input_BU: Tensor,
        labels_BU: Tensor,
        targets: dict[str, TokenDistribution],
        terms: Sequence[ResolvedTerm],
    ) -> tuple[Tensor, Tensor]:
        """Sum of the weighted terms over valid tokens, and each term's own sum.

        `audio` is mel_BMF where the encoder trains, else the frozen encoder's states_BSD.
        """
        states_BSD = audio if self.encoder is None else self.encoder(audio).last_hidden_state
        hidden_BUD = self.decoder(
            input_ids=decoder_input_BU, encoder_hidden_states=states_BSD, use_cache=False
        ).last_hidden_state
        valid_BU = labels_BU != IGNORED_LABEL
        return self.head(hidden_BUD[valid_BU], labels_BU[valid_BU], targets, terms)


class Teacher:
    """A frozen Whisper as a token distribution over the valid label positions of a batch.

    With `sharded`, its weights are spread over the workers by ZeRO-3 and gathered layer by layer.
    """

    def __init__(self, model: WhisperForConditionalGeneration, device: torch.device, sharded: bool = False) -> None:
        self.model = model.requires_grad_(False).eval()
        self.sharded = sharded
        if sharded:
            self._shard()
        else:
            self.model.to(device)

    def _shard(self) -> None:
        prepare_deepspeed()
        import deepspeed

        config = {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            "bf16": {"enabled": self.model.dtype == torch.bfloat16},
        }
        # The engine partitions the module's parameters in place and gathers them by hooks on the module's own forward.
        self._engine, *_ = deepspeed.initialize(model=self.model, config=config)

    def encode(self, mel_BMF: Tensor) -> Tensor:
        """Encoder states_BSD in the teacher's dtype."""
        with torch.no_grad():
            return self.model.model.encoder(mel_BMF.to(self.model.dtype)).last_hidden_state

    def distribution(self, states_BSD: Tensor, decoder_input_BU: Tensor, valid_BU: Tensor) -> HeadDistribution:
        """The teacher's distribution at the valid positions; its logits are made chunk by chunk where they are needed."""
        with torch.no_grad():
            hidden_BUD = self.model.model.decoder(
                input_ids=decoder_input_BU, encoder_hidden_states=states_BSD.to(self.model.dtype), use_cache=False
            ).last_hidden_state
        return HeadDistribution(hidden_BUD[valid_BU], self.model.proj_out.weight)

    def head_gathered(self) -> AbstractContextManager[None]:
        """A context in which the output head's weight is whole on this worker."""
        if not self.sharded:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters([self.model.proj_out.weight])


class FrozenEncoder:
    """The encoder of a student whose encoder does not train: the teacher's when it is the same, else its own."""

    def __init__(
        self, student: WhisperForConditionalGeneration, teacher: Teacher | None, shared: bool, dtype: torch.dtype
    ) -> None:
        self.teacher = teacher if shared else None
        self.encoder = None if shared else student.model.encoder.eval().to(dtype)

    def __call__(self, mel_BMF: Tensor) -> Tensor:
        """states_BSD of the frozen encoder."""
        if self.teacher is not None:
            return self.teacher.encode(mel_BMF)
        assert self.encoder is not None
        with torch.no_grad():
            return self.encoder(mel_BMF.to(self.encoder.conv1.weight.dtype)).last_hidden_state


@dataclass(frozen=True)
class StudentForward:
    """A micro-batch of speech through the teachers and the student."""

    engine: Engine
    frozen_encoder: FrozenEncoder | None
    teacher: Teacher | None
    mlm: MlmTeacher | None
    autocast: torch.dtype | None
    """None: float32 throughout."""

    def __call__(self, batch: Batch, terms: Sequence[ResolvedTerm]) -> tuple[Tensor, Tensor]:
        """Sum of the weighted terms over valid tokens, and each term's own sum."""
        mel_BMF, decoder_input_BU, labels_BU = batch_to(batch, self.engine.device)
        valid_BU = labels_BU != IGNORED_LABEL
        audio = mel_BMF if self.frozen_encoder is None else self.frozen_encoder(mel_BMF)
        needed = targets_needed(terms)
        targets: dict[str, TokenDistribution] = {}
        teacher_head: AbstractContextManager[None] = nullcontext()
        if self.teacher is not None and "teacher" in needed:
            shared = self.frozen_encoder is not None and self.frozen_encoder.teacher is not None
            teacher_states_BSD = audio if shared else self.teacher.encode(mel_BMF)
            targets["teacher"] = self.teacher.distribution(teacher_states_BSD, decoder_input_BU, valid_BU)
            teacher_head = self.teacher.head_gathered()
        if self.mlm is not None and "mlm" in needed:
            targets["mlm"] = self.mlm.distribution(batch.decoder_input_BU, batch.labels_BU)
        with teacher_head, _mixed(self.engine.device, self.autocast):
            return self.engine.forward(audio.float(), decoder_input_BU, labels_BU, targets, terms)


class MlmStep(nn.Module):
    """The masked language model with the objective inside, as one module for the training engine."""

    def __init__(self, model: MaskedLm) -> None:
        super().__init__()
        self.model = model
        self.head = ObjectiveHead(model.embedding.weight)

    def forward(
        self, tokens_BT: Tensor, lengths_B: Tensor, masked_BT: Tensor, terms: Sequence[ResolvedTerm]
    ) -> tuple[Tensor, Tensor]:
        """Sum of the weighted terms over masked positions, and each term's own sum."""
        with torch.autocast("cpu", enabled=False):  # many CPUs have no LSTM in bfloat16 and PyTorch fails there
            states_BTD = self.model(self.model.masked(tokens_BT, masked_BT), lengths_B)
        return self.head(states_BTD[masked_BT], tokens_BT[masked_BT], {}, terms)


@dataclass(frozen=True)
class MlmForward:
    """A micro-batch of text through the masked language model."""

    engine: Engine
    autocast: torch.dtype | None

    def __call__(self, batch: TextBatch, terms: Sequence[ResolvedTerm]) -> tuple[Tensor, Tensor]:
        """Sum of the weighted terms over masked positions, and each term's own sum."""
        tensors = (tensor.to(self.engine.device) for tensor in (batch.tokens_BT, batch.lengths_B, batch.masked_BT))
        with _mixed(self.engine.device, self.autocast):
            return self.engine.forward(*tensors, terms)


def _mixed(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def trains(module: nn.Module) -> bool:
    """Whether any parameter of the module is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


def batch_to(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """mel_BMF, decoder_input_BU and labels_BU of a batch on the device."""
    return (
        batch.mel_BMF.to(device, non_blocking=True),
        batch.decoder_input_BU.to(device, non_blocking=True),
        batch.labels_BU.to(device, non_blocking=True),
    )
