"""Parameters and operations: the formulas against torch's own counter and against published sizes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import WhisperConfig, WhisperForConditionalGeneration

from raykd.config.models import ScratchConfig
from raykd.models.demo import new_whisper
from raykd.models.size import count_parameters, flops_per_utterance
from raykd.parts.students.layer_copy import LayerCopy

DIMS = ScratchConfig(width=32, heads=2, ffn=80, encoder_layers=3, decoder_layers=2, window_s=2.0, max_label_tokens=64)
LARGE_V2 = WhisperConfig(
    d_model=1280,
    encoder_layers=32,
    decoder_layers=32,
    encoder_attention_heads=20,
    decoder_attention_heads=20,
    encoder_ffn_dim=5120,
    decoder_ffn_dim=5120,
)


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    """With eager attention, because torch's counter does not see the fused attention of the CPU."""
    model = new_whisper(DIMS, seed=0)
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("tokens", [1, 17])
def test_flops_are_what_torch_counts(model: WhisperForConditionalGeneration, tokens: int) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        states = model.model.encoder(torch.zeros(1, 80, 200))
        encoder = counter.get_total_flops()
        model(encoder_outputs=states, decoder_input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=False)
    flops = flops_per_utterance(model.config, tokens=tokens)
    assert flops.encoder == encoder
    assert flops.total == counter.get_total_flops()


def test_a_cache_saves_only_the_masked_half_of_self_attention(model: WhisperForConditionalGeneration) -> None:
    tokens = 9
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        states, past = model.model.encoder(torch.zeros(1, 80, 200)), None
        for _ in range(tokens):
            ids = torch.ones(1, 1, dtype=torch.long)
            past = model(encoder_outputs=states, decoder_input_ids=ids, past_key_values=past, use_cache=True).past_key_values
    flops = flops_per_utterance(model.config, tokens=tokens)
    skipped = 2 * tokens * (tokens - 1) * DIMS.width * DIMS.decoder_layers
    assert flops.total - skipped == counter.get_total_flops()


def test_a_shared_encoder_costs_nothing_again() -> None:
    alone = flops_per_utterance(LARGE_V2, tokens=30)
    shared = flops_per_utterance(LARGE_V2, tokens=30, shared_encoder=True)
    assert shared.encoder == 0
    assert alone.total - shared.total == alone.encoder
    assert (alone.decoder, alone.head) == (shared.decoder, shared.head)


@pytest.mark.parametrize(("decoder_layers", "millions"), [(32, 1543.3), (2, 756.2)])
def test_parameters_of_large_v2_and_distil_large_v2(decoder_layers: int, millions: float) -> None:
    """Published: 1 543 M and 756 M (Distil-Whisper, Table 12)."""
    config = WhisperConfig(**{**LARGE_V2.to_dict(), "decoder_layers": decoder_layers})
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    assert count_parameters(model).total / 1e6 == pytest.approx(millions, abs=0.1)


def test_trainable_parameters_leave_out_the_frozen_encoder_and_count_the_tied_head_once() -> None:
    model = new_whisper(DIMS, seed=0)
    LayerCopy(freeze_encoder=True).freeze(model)
    count = count_parameters(model)
    assert count.trainable == sum(parameter.numel() for parameter in model.model.decoder.parameters())
    assert count.total - count.trainable == sum(parameter.numel() for parameter in model.model.encoder.parameters())
