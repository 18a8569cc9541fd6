"""A student that shrinks: with units left aside it computes what the cut Whisper computes, which is a plain one.

Shapes: B utterances, M mel channels, F frames.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from raykd.config import Config
from raykd.config.models import ScratchConfig
from raykd.errors import UserError
from raykd.models.demo import demo_processor, new_whisper
from raykd.models.shrinking import CompactedLinear, MaskedLayerNorm, shrunk, units_of
from raykd.models.whisper import load_whisper, save_whisper
from raykd.parts.students.shrinking import Shrinking

SIZES = {"decoder_ffn": 40, "encoder_ffn": 0.25, "heads": 2, "freeze_encoder": False}


@pytest.fixture
def teacher() -> WhisperForConditionalGeneration:
    dims = ScratchConfig(width=32, heads=4, ffn=64, encoder_layers=2, decoder_layers=2, window_s=5.0, max_label_tokens=64)
    model = new_whisper(dims, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def said(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    mel_BMF = torch.randn(2, 80, 500, generator=generator, dtype=torch.float64)
    tokens_BU = torch.randint(0, 50_000, (2, 7), generator=generator)
    with torch.no_grad():
        return model(input_features=mel_BMF, decoder_input_ids=tokens_BU).logits


def cut_at_random(model: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    for one in units_of(model):
        one.keep(torch.randperm(one.count, generator=generator)[: one.left])


def test_nothing_is_left_aside_at_first(teacher: Any) -> None:
    student = Shrinking(**SIZES, compactors=True).make(teacher, 0)
    torch.testing.assert_close(said(student.double()), said(copy.deepcopy(teacher).double()), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "section",
    [
        SIZES,
        {"decoder_ffn": 0.5},
        {"decoder_ffn": 24, "compactors": True},
        {"encoder_ffn": 3, "decoder_ffn": 5, "freeze_encoder": False, "compactors": True},
        {"heads": 1, "freeze_encoder": False},
    ],
)
def test_the_cut_model_is_a_plain_whisper_and_says_the_same(teacher: Any, section: dict[str, Any], tmp_path: Path) -> None:
    kind = Shrinking(**section)
    student = kind.make(teacher, 0).double()
    for layer in (module for module in student.modules() if isinstance(module, CompactedLinear)):
        torch.nn.init.normal_(layer.compactor, std=0.2)
    cut_at_random(student)
    plain = kind.finished(student)
    assert type(plain) is WhisperForConditionalGeneration
    assert "shrinking" not in plain.config.to_dict()
    torch.testing.assert_close(said(plain), said(student), rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in plain.parameters()) < sum(p.numel() for p in teacher.parameters())
    dims = ScratchConfig(width=32, heads=4, ffn=64, encoder_layers=2, decoder_layers=2, window_s=5.0, max_label_tokens=64)
    save_whisper(plain.float(), demo_processor(dims), str(tmp_path))
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path).double()
    torch.testing.assert_close(said(loaded), said(student), rtol=1e-4, atol=1e-4)


def test_its_weights_are_exactly_the_kept_ones(teacher: Any) -> None:
    student = Shrinking(**SIZES).make(teacher, 0)
    cut_at_random(student)
    plain = shrunk(student)
    units = {one.name: one for one in units_of(student)}
    width = units["width"].kept_U.bool()
    assert plain.config.d_model == 16 == int(width.sum())
    assert (plain.config.encoder_ffn_dim, plain.config.decoder_ffn_dim) == (16, 40)
    channels = units["model.decoder.layers.1.fc2"].kept_U.bool()
    layer, old = plain.model.decoder.layers[1], teacher.model.decoder.layers[1]
    assert torch.equal(layer.fc1.weight, old.fc1.weight[channels][:, width])
    assert torch.equal(layer.fc2.weight, old.fc2.weight[width][:, channels])
    heads = units["model.decoder.layers.1.encoder_attn"].kept_U.bool().repeat_interleave(8)
    assert torch.equal(layer.encoder_attn.v_proj.bias, old.encoder_attn.v_proj.bias[heads])
    assert torch.equal(plain.proj_out.weight, teacher.proj_out.weight[:, width])


def test_it_is_read_back_with_its_masks(teacher: Any, tmp_path: Path) -> None:
    student = Shrinking(**SIZES, compactors=True).make(teacher, 0)
    cut_at_random(student)
    dims = ScratchConfig(width=32, heads=4, ffn=64, encoder_layers=2, decoder_layers=2, window_s=5.0, max_label_tokens=64)
    save_whisper(student, demo_processor(dims), str(tmp_path))
    loaded = load_whisper(str(tmp_path))
    assert torch.equal(said(loaded.double()), said(student.double()))


def test_alignment_heads_are_numbered_as_they_are_now(teacher: Any) -> None:
    student: Any = Shrinking(heads=2, freeze_encoder=False).make(teacher, 0)
    student.generation_config.alignment_heads = [[0, 1], [0, 3], [1, 0]]
    for one in units_of(student):
        one.keep(torch.arange(one.count)[-one.left :])
    generation: Any = shrunk(student).generation_config
    assert generation.alignment_heads == [[0, 1]]


def test_a_size_that_the_teacher_does_not_have_is_told_before_anything_is_made(teacher: Any) -> None:
    with pytest.raises(UserError, match=r"student\.decoder_ffn: 65 asked for, but the teacher has 64"):
        Shrinking(decoder_ffn=65).dimensions(teacher.config)
    with pytest.raises(UserError, match=r"student\.heads: 5 asked for, but the teacher has 4"):
        Shrinking(heads=5, freeze_encoder=False).dimensions(teacher.config)


def test_a_masked_norm_is_pytorchs_over_what_is_kept() -> None:
    norm = torch.nn.LayerNorm(6).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x_BD = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    kept = torch.tensor([True, False, True, True, False, True])
    expected = functional.layer_norm(x_BD[:, kept], (4,), norm.weight[kept], norm.bias[kept], norm.eps)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x_BD)
    norm.__class__ = MaskedLayerNorm
    norm.register_buffer("kept_U", kept.double())
    found = norm(x_BD)
    (gradient,) = torch.autograd.grad(found.square().sum(), x_BD)
    torch.testing.assert_close(found[:, kept], expected)
    assert not found[:, ~kept].any()
    torch.testing.assert_close(gradient, wanted)


def test_the_task_moves_no_row_that_is_reset() -> None:
    layer: Any = torch.nn.Linear(3, 4)
    layer.__class__ = CompactedLinear
    layer.prepare()
    layer.reset_F[[1, 2]] = 1
    layer(torch.randn(5, 3)).square().sum().backward()
    assert layer.compactor.grad[[0, 3]].any(1).all()
    assert not layer.compactor.grad[[1, 2]].any()
    layer.compactor.grad = None
    layer(torch.randn(5, 3))
    layer.row_norms_F.sum().backward()
    torch.testing.assert_close(layer.compactor.grad, torch.eye(4)), "the lasso's gradient is each row at length 1"


@pytest.mark.parametrize(
    ("student", "told"),
    [
        ({}, "student.decoder_ffn: give the size that something has at the end"),
        ({"decoder_ffn": 1.0}, "student.decoder_ffn"),  # neither one channel nor a share that leaves something aside
        ({"heads": 2}, "student.heads: changes the encoder, which has to train: set freeze_encoder: false"),
        (
            {"decoder_ffn": 8, "compactors": True, "gradient_checkpointing": True},
            "gradient_checkpointing: not possible",
        ),
    ],
)
def test_what_cannot_shrink_is_told(student: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        Config.model_validate(
            {
                "data": {"source": "x.jsonl"},
                "teacher": {"model": "x"},
                "student": {"kind": "shrinking", **student},
                "train": {"steps": 1},
            }
        )
    key, _, text = told.partition(": ")
    assert text in str(raised.value)
    assert key.split(".")[-1] in str(raised.value)
