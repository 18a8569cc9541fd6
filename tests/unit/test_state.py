"""The fingerprint of frozen weights changes with any value, name or shape, and with nothing else."""

import hashlib

import pytest
import torch
from torch import nn

from raykd.config.models import ScratchConfig
from raykd.models import state
from raykd.models.demo import new_whisper
from raykd.models.state import frozen_names, state_hash, trainable_names
from raykd.parts.students.layer_copy import LayerCopy

DIMS = ScratchConfig(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=1, window_s=1.0)


def all_names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def test_names_are_split_by_what_trains_and_the_tied_head_comes_once() -> None:
    model = new_whisper(DIMS, seed=0)
    LayerCopy(freeze_encoder=True).freeze(model)
    assert all(name.startswith("model.encoder.") for name in frozen_names(model))
    assert all(name.startswith("model.decoder.") for name in trainable_names(model))
    assert "model.decoder.embed_tokens.weight" in trainable_names(model)
    assert sorted(trainable_names(model) + frozen_names(model)) == sorted(all_names(model))
    assert "proj_out.weight" not in all_names(model)


def test_any_single_weight_changes_the_hash_and_putting_it_back_restores_it() -> None:
    model = new_whisper(DIMS, seed=0)
    before = state_hash(model, all_names(model))
    for name, parameter in model.named_parameters():
        last = parameter.data.view(-1)[-1].clone()
        parameter.data.view(-1)[-1] = torch.nextafter(last, torch.tensor(float("inf")))
        assert state_hash(model, all_names(model)) != before, name
        parameter.data.view(-1)[-1] = last
    assert state_hash(model, all_names(model)) == before


def test_the_hash_covers_only_the_named_parameters_in_any_order() -> None:
    model = new_whisper(DIMS, seed=0)
    LayerCopy(freeze_encoder=True).freeze(model)
    names = frozen_names(model)
    before = state_hash(model, names)
    model.model.decoder.layers[0].fc1.weight.data.add_(1)
    assert state_hash(model, reversed(names)) == before
    assert state_hash(model, names[:-1]) != before


def test_equal_values_hash_equally_in_another_type() -> None:
    half = nn.Linear(7, 5).to(torch.bfloat16)
    single = nn.Linear(7, 5)
    single.load_state_dict(half.state_dict())
    assert state_hash(half, all_names(half)) == state_hash(single, all_names(single))


def test_shape_and_name_count() -> None:
    long, wide = nn.Module(), nn.Module()
    long.register_parameter("w", nn.Parameter(torch.zeros(6, 2)))
    wide.register_parameter("w", nn.Parameter(torch.zeros(2, 6)))
    assert state_hash(long, ["w"]) != state_hash(wide, ["w"])
    renamed = nn.Module()
    renamed.register_parameter("v", nn.Parameter(torch.zeros(6, 2)))
    assert state_hash(long, ["w"]) != state_hash(renamed, ["v"])


def test_large_tensors_are_hashed_in_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(13, 11)
    whole = state_hash(model, ["weight"])
    monkeypatch.setattr(state, "CHUNK_ELEMENTS", 10)
    assert state_hash(model, ["weight"]) == whole
    values = hashlib.sha256(model.weight.detach().numpy().tobytes()).digest()
    assert whole == hashlib.sha256(b"weight (11, 13) " + values).hexdigest()


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        state_hash(nn.Linear(2, 2), ["wieght"])
