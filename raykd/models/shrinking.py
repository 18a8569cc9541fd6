"""Whisper that grows smaller while it trains: units are left aside first and cut out at the end.

A *unit* is a channel of a feed-forward block, a head of an attention, a channel between the encoder's convolutions, or one of
the dimensions that all layers share (the width). What is left aside gives and gets nothing, so that the model already computes
what the cut one will: a plain Whisper folder. Its architecture has one size of the feed-forward blocks for each stack, one
number of heads and one width, so every layer of a stack keeps as many as the others, and the width is heads times the size of a
head.

Shapes: U units, I inputs of a layer, D width, F channels of a feed-forward block.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperConfig, WhisperForConditionalGeneration

SHRINKING = "shrinking"
"""Key of a model's config while it trains: sizes at the end (`ffn` by stack, `heads`; None: as they are) and `compactors`."""


@dataclass(frozen=True)
class Units:
    """Units of one kind in one place, of which some will be left."""

    name: str
    count: int
    """At the start."""
    left: int
    """At the end."""
    modules: tuple[Any, ...]
    """Each has the mask `kept_U` (1: used, 0: left aside), the same in all."""
    places: tuple[tuple[str, int], ...]
    """What makes up a unit: (name of a parameter, dimension along which units follow one another)."""

    @property
    def kept_U(self) -> Tensor:
        """1 for units that are used, 0 for those left aside."""
        kept_U: Tensor = self.modules[0].kept_U
        return kept_U

    def keep(self, chosen_U: Tensor) -> None:
        """Leave all others aside."""
        for module in self.modules:
            module.kept_U.zero_()[chosen_U] = 1

    def indices(self, size: int) -> Tensor:
        """Places of the kept units along a dimension of some size, several to a unit where a unit is a head."""
        return self.kept_U.bool().cpu().repeat_interleave(size // self.count).nonzero().squeeze(1)


class ShrinkingWhisper(WhisperForConditionalGeneration):
    """A Whisper with masks, and compactors where its config wants them, beside its weights."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        section: dict[str, Any] = getattr(config, SHRINKING)
        stacks: dict[str, Any] = {"encoder": self.model.encoder, "decoder": self.model.decoder}
        for stack in section["ffn"]:
            for layer in stacks[stack].layers:
                _masked(layer.fc2, MaskedLinear, layer.fc2.in_features)
                if section["compactors"]:
                    layer.fc1.__class__ = CompactedLinear
                    layer.fc1.prepare()
        if section["heads"] is None:
            return
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                _masked(module, MaskedLayerNorm, config.d_model)
        _masked(self.model.encoder.conv2, MaskedConv1d, config.d_model)
        for attention in _attentions(self):
            _masked(attention.out_proj, MaskedLinear, attention.num_heads)


def units_of(model: Any) -> list[Units]:
    """All units of a `ShrinkingWhisper` that some will be left of."""
    section = getattr(model.config, SHRINKING)
    names = {module: name for name, module in model.named_modules()}
    found = []
    for stack, left in section["ffn"].items():
        for layer in getattr(model.model, stack).layers:
            fc1, fc2 = names[layer.fc1], names[layer.fc2]
            outer = f"{fc1}.compactor" if section["compactors"] else f"{fc1}.weight"
            bias = [] if section["compactors"] else [(f"{fc1}.bias", 0)]
            places = ((outer, 0), *bias, (f"{fc2}.weight", 1))
            found.append(Units(fc2, layer.fc2.in_features, left, (layer.fc2,), places))
    if section["heads"] is not None:
        found += _units_of_heads(model, names, section["heads"])
    return found


def _units_of_heads(model: Any, names: dict[Any, str], left: int) -> Iterator[Units]:
    """Heads, and the channels and the width that follow from their number."""
    config = model.config
    width = left * (config.d_model // config.decoder_attention_heads)
    for attention in _attentions(model):
        name = names[attention]
        rows = [
            (f"{name}.{part}_proj.{leaf}", 0) for part in "qkv" for leaf in ("weight", "bias") if (part, leaf) != ("k", "bias")
        ]
        places = (*rows, (f"{name}.out_proj.weight", 1))
        yield Units(name, attention.num_heads, left, (attention.out_proj,), places)
    encoder, decoder = model.model.encoder, model.model.decoder
    places = (("model.encoder.conv1.weight", 0), ("model.encoder.conv1.bias", 0), ("model.encoder.conv2.weight", 1))
    yield Units("model.encoder.conv1", config.d_model, width, (encoder.conv2,), places)
    norms = tuple(module for module in model.modules() if isinstance(module, nn.LayerNorm))
    shared = [(f"{names[norm]}.{leaf}", 0) for norm in norms for leaf in ("weight", "bias")]
    shared += [("model.encoder.conv2.weight", 0), ("model.encoder.conv2.bias", 0), ("model.encoder.embed_positions.weight", 1)]
    shared += [("model.decoder.embed_tokens.weight", 1), ("model.decoder.embed_positions.weight", 1)]
    for layer in (*encoder.layers, *decoder.layers):
        shared += [(f"{names[layer.fc1]}.weight", 1), (f"{names[layer.fc2]}.weight", 0), (f"{names[layer.fc2]}.bias", 0)]
    for attention in _attentions(model):
        name = names[attention]
        shared += [(f"{name}.{part}_proj.weight", 1) for part in "qkv"]
        shared += [(f"{name}.out_proj.weight", 0), (f"{name}.out_proj.bias", 0)]
    yield Units("width", config.d_model, width, norms, tuple(shared))


def with_masks(model: WhisperForConditionalGeneration, ffn: dict[str, int], heads: int | None, compactors: bool) -> Any:
    """The model as one that can shrink to some sizes; it computes what it did. `ffn`: by stack."""
    setattr(model.config, SHRINKING, {"ffn": ffn, "heads": heads, "compactors": compactors})
    made = ShrinkingWhisper(model.config)
    made.load_state_dict({**made.state_dict(), **model.state_dict()})
    made.tie_weights()
    made.generation_config = model.generation_config
    return made.eval()


@torch.no_grad()
def shrunk(model: Any) -> WhisperForConditionalGeneration:
    """A plain Whisper that has the kept units only and computes the same: their weights as they are, compactors multiplied into
    the layer before.

    Raises:
        ValueError: layers of a stack keep different numbers of units.
    """
    units = units_of(model)
    values = {name: value.clone() for name, value in model.state_dict().items() if not name.endswith(".kept_U")}
    for name in [name for name in values if name.endswith(".compactor")]:
        compactor_FF, layer = values[name].double(), name.removesuffix(".compactor")
        for leaf in ("weight", "bias"):
            whole = values[f"{layer}.{leaf}"]
            values[f"{layer}.{leaf}"] = (compactor_FF @ whole.double()).to(whole.dtype)
    for one in units:
        for name, dimension in one.places:
            values[name] = values[name].index_select(dimension, one.indices(values[name].shape[dimension]))
            if name.endswith(".compactor"):
                layer = name.removesuffix(".compactor")
                kept = one.indices(one.count)
                values[f"{layer}.weight"] = values[f"{layer}.weight"][kept]
                values[f"{layer}.bias"] = values[f"{layer}.bias"][kept]
    values["proj_out.weight"] = values["model.decoder.embed_tokens.weight"]
    config = WhisperConfig.from_dict({key: value for key, value in model.config.to_dict().items() if key != SHRINKING})
    for stack, layers in (("encoder", model.model.encoder.layers), ("decoder", model.model.decoder.layers)):
        sizes = {len(values[f"model.{stack}.layers.{number}.fc2.weight"][0]) for number in range(len(layers))}
        if len(sizes) > 1:
            raise ValueError(f"the layers of the {stack} keep different numbers of channels: {sorted(sizes)}")
        setattr(config, f"{stack}_ffn_dim", sizes.pop())
    heads = [int(one.kept_U.sum()) for one in units if one.modules[0] in {a.out_proj for a in _attentions(model)}]
    if len(set(heads)) > 1:
        raise ValueError(f"attentions keep different numbers of heads: {sorted(set(heads))}")
    if heads:
        config.encoder_attention_heads = config.decoder_attention_heads = heads[0]
        config.d_model = values["model.decoder.embed_tokens.weight"].shape[1]
    plain = WhisperForConditionalGeneration(config).to(model.dtype)
    plain.load_state_dict({name: value for name, value in values.items() if not name.endswith((".compactor", ".reset_F"))})
    plain.tie_weights()
    plain.generation_config = _with_kept_heads(model, units)
    return plain.eval()


def _with_kept_heads(model: Any, units: list[Units]) -> Any:
    """The generation config, its alignment heads numbered as they are now; those that are gone are left out."""
    generation = copy.deepcopy(model.generation_config)
    listed = getattr(generation, "alignment_heads", None)
    cross = {id(layer.encoder_attn.out_proj): number for number, layer in enumerate(model.model.decoder.layers)}
    kept = {cross[id(one.modules[0])]: one.indices(one.count).tolist() for one in units if id(one.modules[0]) in cross}
    if not listed or not kept:
        return generation
    still = [[layer, kept[layer].index(head)] for layer, head in listed if head in kept[layer]]
    if still:
        generation.alignment_heads = still
    else:
        del generation.alignment_heads
    return generation


class MaskedLinear(nn.Linear):
    """A linear layer that hears only the kept units of its input, several features to a unit where a unit is a head."""

    kept_U: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (..., I)."""
        kept_I = self.kept_U.repeat_interleave(self.in_features // len(self.kept_U))
        return super().forward(x * kept_I.to(x.dtype))


class MaskedConv1d(nn.Conv1d):
    """A convolution that hears only the kept channels."""

    kept_U: Tensor

    def forward(self, x_BUT: Tensor) -> Tensor:
        """x_BUT over time T."""
        return super().forward(x_BUT * self.kept_U[:, None].to(x_BUT.dtype))


class MaskedLayerNorm(nn.LayerNorm):
    """A layer norm over the kept dimensions; 0 in the others."""

    kept_U: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (..., D). As PyTorch's, in float32 or wider."""
        wide = x if x.dtype == torch.float64 else x.float()
        kept_U = self.kept_U.to(wide.dtype)
        count = kept_U.sum()
        from_mean = (wide - (wide * kept_U).sum(-1, keepdim=True) / count) * kept_U
        normed = from_mean * torch.rsqrt(from_mean.square().sum(-1, keepdim=True) / count + self.eps)
        return ((normed * self.weight + self.bias) * kept_U).to(self.weight.dtype)


class CompactedLinear(nn.Linear):
    """A linear layer with a compactor behind it, a square matrix that starts as the identity (Xie et al. 2023). The norm of a
    row says how much its channel matters.
    """

    compactor: nn.Parameter
    """FF."""
    reset_F: Tensor
    """1 for channels that get no gradient from the task."""
    row_norms_F: Tensor
    """Of the last forward pass, with their graph."""

    def prepare(self) -> None:
        """The compactor, once the class has been given to a linear layer."""
        like = self.weight
        self.compactor = nn.Parameter(torch.eye(self.out_features, device=like.device, dtype=like.dtype))
        self.register_buffer("reset_F", torch.zeros(self.out_features, device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (..., D) to (..., F)."""
        self.row_norms_F = self.compactor.norm(dim=1)
        frozen_F1 = self.reset_F[:, None].bool()
        task_FF = torch.where(frozen_F1, self.compactor.detach(), self.compactor)
        return functional.linear(super().forward(x), task_FF)


def _masked(module: nn.Module, kind: type[nn.Module], units: int) -> None:
    module.__class__ = kind
    weight: Any = module.weight
    module.register_buffer("kept_U", torch.ones(units, device=weight.device))


def _attentions(model: Any) -> list[Any]:
    encoder, decoder = model.model.encoder.layers, model.model.decoder.layers
    return [
        *(layer.self_attn for layer in encoder),
        *(attention for layer in decoder for attention in (layer.self_attn, layer.encoder_attn)),
    ]
