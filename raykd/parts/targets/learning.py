"""A Whisper that teaches and learns while it does.

Shapes: B utterances, S encoder positions, U label positions, N valid tokens, D width, V vocabulary.
"""

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from raykd.config.base import wrong
from raykd.data.batches import Batch
from raykd.errors import UserError
from raykd.models.precision import compute_dtype
from raykd.parts.distribution import HeadDistribution
from raykd.parts.encoder import FrozenEncoder
from raykd.parts.outputs import Outputs, decoded
from raykd.parts.targets.target import LiveTarget, Ready, Target
from raykd.parts.targets.whisper import WhisperTarget

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

    from raykd.parts.worker import Worker


class LearningWhisper(WhisperTarget):
    """A Whisper that teaches, and is taught by terms `of` it (`{kind: ce, of: teacher}`). A student never gets its gradient,
    nor it a student's.

    Recipes make it of the config's teacher (`okd`, `real_time`). What it trains is in the run's checkpoints; the teacher that
    is evaluated beside the student is the one it started as.
    """

    learns: ClassVar[bool] = True

    kind: Literal["learning"] = "learning"  # type: ignore[assignment]
    trains: Literal["adapters", "decoder", "all"] = "adapters"
    """What learns: low-rank adapters in the decoder (`peft`) while all weights stay; the decoder; or the encoder as well."""
    rank: int = Field(32, ge=1)
    """Of the adapters."""
    scale: float = Field(1.0, gt=0)
    """What the adapters' part is multiplied by: h + scale · x · W_down · W_up."""
    modules: Annotated[tuple[str, ...], Field(min_length=1)] = ("q_proj", "v_proj")
    """Names of the decoder's linear layers that get an adapter, in self-attention and cross-attention alike."""

    @model_validator(mode="after")
    def _is_spread_with_the_student(self) -> "LearningWhisper":
        if self.sharded:
            raise wrong("a teacher that learns is spread with the student, by train.zero_stage: 3; leave it out", "sharded")
        return self

    def check(self, ready: Ready) -> None:
        """See `Target`."""
        if self.trains == "adapters":
            _require_peft()

    def trained_of(self, model: "WhisperForConditionalGeneration") -> int:
        """See `WhisperTarget`."""
        decoder: Any = model.model.decoder
        if self.trains == "adapters":
            named = ((name.rpartition(".")[2], one) for name, one in decoder.named_modules() if isinstance(one, nn.Linear))
            return sum(self.rank * (one.in_features + one.out_features) for name, one in named if name in self.modules)
        encoder: Any = model.model.encoder
        positions = encoder.embed_positions.weight.numel()
        both = [decoder, encoder] if self.trains == "all" else [decoder]
        return sum(one.numel() for module in both for one in module.parameters()) - (positions if len(both) > 1 else 0)

    def build(self, on: "Worker") -> LiveTarget:
        """The model on the device, with its adapters.

        Raises:
            UserError: there are no such layers, or `peft` is not installed.
        """
        from raykd.models.pruning import cut_to
        from raykd.models.whisper import load_whisper

        dtype = compute_dtype(self.dtype, on.device) if self.trains == "adapters" else torch.float32
        model = load_whisper(self.model, dtype, self.revision)
        cut_to(model, on.kept_tokens)
        model.requires_grad_(self.trains != "adapters")
        return LearningTeacher(model, self, on)


class LearningTeacher(LiveTarget):
    """A Whisper at work some of whose weights train."""

    def __init__(self, model: "WhisperForConditionalGeneration", config: LearningWhisper, on: "Worker") -> None:
        self._autocast, self._device = on.autocast, on.device
        self._decoder: Any = model.model.decoder
        self._encoder: Any = None
        self._frozen: FrozenEncoder | None = None
        if config.trains == "all":
            self._encoder = model.model.encoder
            self._encoder.embed_positions.requires_grad_(False)
        else:
            self._frozen = FrozenEncoder(model.model.encoder)
            self._frozen.settle(on.device, compile_or_tell=on.compile_or_tell)
            if on.student.frozen_encoder is not None and on.student.frozen_encoder.is_copy_of(model):
                on.student.frozen_encoder = self._frozen
        self.head_VD = model.proj_out.weight
        self._decoder.to(on.device)
        self.learner = self._adapters(config, on.seed) if config.trains == "adapters" else self._weights()

    def _weights(self) -> nn.Module:
        modules = {"decoder": self._decoder} if self._encoder is None else {"decoder": self._decoder, "encoder": self._encoder}
        return nn.ModuleDict(modules)

    def _adapters(self, config: LearningWhisper, seed: int) -> nn.Module:
        """Those that were put into the decoder, and nothing else of it."""
        _require_peft()
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        alpha: Any = config.scale * config.rank  # peft divides it by the rank
        section = LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=list(config.modules))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                inject_adapter_in_model(section, self._decoder)
            except ValueError:
                known = "q_proj, k_proj, v_proj, out_proj, fc1, fc2"
                raise UserError(
                    f"a teacher with adapters: modules {', '.join(config.modules)} are not in its decoder (known: {known})"
                ) from None
        layers = [module for module in self._decoder.modules() if isinstance(module, LoraLayer)]
        pairs = [nn.ModuleList([*layer.lora_A.values(), *layer.lora_B.values()]) for layer in layers]
        return nn.ModuleList(pairs).float()

    def outputs(self, batch: Batch, wanted: frozenset[str], others: Mapping[str, Outputs]) -> Outputs:
        """See `LiveTarget`."""
        mixed = torch.autocast(self._device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None)
        with mixed:
            hidden_ND, auxiliary = decoded(self._decoder, batch, self._states(batch), wanted)
        assert self.head_VD is not None
        return Outputs(HeadDistribution(hidden_ND.detach(), self.head_VD), _constant(auxiliary), hidden_ND)

    def _states(self, batch: Batch) -> Tensor:
        from raykd.models.window import encoder_states

        if self._frozen is None:
            mel_BMF = batch.mel_BMF if batch.teacher_mel_BMF is None else batch.teacher_mel_BMF
            return encoder_states(self._encoder, mel_BMF)
        states_BSD = self._frozen.states(batch, for_targets=True)
        return states_BSD if self._autocast is not None else states_BSD.to(self.head_VD.dtype)  # type: ignore[union-attr]


def _constant(auxiliary: Mapping[str, Any]) -> dict[str, Any]:
    """The same without graphs: terms that compare states teach the student alone."""
    return {
        name: tuple(one.detach() for one in states)
        if isinstance(states, tuple)
        else None
        if states is None
        else states.detach()
        for name, states in auxiliary.items()
    }


def _require_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise UserError("a teacher with adapters: peft is not installed; run `pip install 'raykd[lora]'`")


def learning(teacher: Target, recipe: str, **options: Any) -> LearningWhisper:
    """The config's teacher as one that learns.

    Raises:
        UserError: it cannot.
    """
    if not isinstance(teacher, WhisperTarget) or teacher.kind != "whisper":
        raise UserError(
            f"objective.recipe {recipe}: its teacher learns, so its answers cannot be kept; take teacher.kind whisper"
        )
    if teacher.sharded:
        raise UserError(
            f"teacher.sharded: the teacher of {recipe} learns and is spread with the student, by train.zero_stage: 3"
        )
    return LearningWhisper(model=teacher.model, revision=teacher.revision, dtype=teacher.dtype, **options)
