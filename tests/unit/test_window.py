"""Short windows: the encoder on a part of its positions, what student and targets hear, and batches of like length."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from raykd.data.batches import Batch
from raykd.data.corpus import Index
from raykd.data.order import EpochOrder
from raykd.models.whisper import load_processor, load_whisper, read_config, save_whisper
from raykd.models.window import CLIP_MARGIN, encoder_states, heard_frames
from raykd.parts.clock import Clock
from raykd.parts.encoder import FrozenEncoder
from raykd.parts.inputs.clip_window import ClipWindow, LiveClipWindow
from raykd.parts.inputs.input import LossGradient
from raykd.parts.students.layer_copy import LayerCopy
from raykd.parts.students.student import Student


def no_gradient(batch: Batch) -> torch.Tensor:
    raise AssertionError(batch)


NO_GRADIENT: LossGradient = no_gradient
LABELS_BU = torch.tensor([[3, 4], [5, -100]])


def test_fewer_positions_are_what_a_model_with_fewer_positions_computes(tiny_whisper_dir: Path) -> None:
    model = load_whisper(str(tiny_whisper_dir))
    encoder = model.model.encoder
    whole = model.config.max_source_positions
    mel_BMF = torch.randn(2, model.config.num_mel_bins, 2 * whole)
    torch.testing.assert_close(encoder_states(encoder, mel_BMF), encoder(mel_BMF).last_hidden_state, rtol=0, atol=0)
    short_BSD = encoder_states(encoder, mel_BMF[..., :86])
    encoder.config.max_source_positions = 43
    encoder.embed_positions = nn.Embedding.from_pretrained(encoder.embed_positions.weight[:43])
    expected_BSD = encoder(mel_BMF[..., :86]).last_hidden_state
    torch.testing.assert_close(short_BSD, expected_BSD, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_model_that_says_nothing_hears_whole_windows(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    teacher = load_whisper(str(tiny_whisper_dir))
    whole = 2 * teacher.config.max_source_positions
    assert heard_frames(teacher.config, 31) == whole
    student = LayerCopy(decoder_layers=1, window=ClipWindow(margin=5)).made(teacher, 0)
    save_whisper(student, load_processor(str(tiny_whisper_dir)), str(tmp_path))
    config = read_config(str(tmp_path))
    assert getattr(config, CLIP_MARGIN) == 5
    assert [heard_frames(config, longest) for longest in (30, 31, whole - 4, whole)] == [40, 42, whole, whole]


@pytest.mark.parametrize("written", ["clip", {"margin": 32}, {"kind": "clip_window"}])
def test_it_can_be_written_in_a_word(written: object) -> None:
    student = LayerCopy.model_validate({"window": written})
    assert student.window == ClipWindow()
    assert student.inputs == (ClipWindow(),)
    assert LayerCopy().inputs == ()
    assert isinstance(student, Student)


def heard(step: int, **fields: int | float) -> Batch:
    from transformers import WhisperConfig

    mel_BMF = torch.arange(200.0).expand(2, 4, 200)
    batch = Batch(["a", "b"], ["cs", "cs"], mel_BMF, LABELS_BU.clamp(min=0), LABELS_BU, 1.0, longest_frames=61)
    live = LiveClipWindow(ClipWindow.model_validate(fields), WhisperConfig(max_source_positions=100))
    return live.apply(batch, NO_GRADIENT, Clock(step, 100, seed=1))


def test_the_student_hears_the_clip_and_a_margin_and_targets_the_whole_window() -> None:
    frames = [heard(step, margin=8, jitter=4, whole_share=0.0).mel_BMF.shape[-1] for step in range(60)]
    assert set(frames) == {62 + 2 * margin for margin in range(4, 13)}
    batch = heard(0, margin=0, jitter=0, whole_share=0.0)
    assert batch.mel_BMF.shape[-1] == 62
    assert batch.teacher_mel_BMF is not None
    assert batch.teacher_mel_BMF.shape[-1] == 200
    assert heard(0, margin=1000, whole_share=0.0).mel_BMF.shape[-1] == 200, "never more than the model has"


def test_some_batches_keep_the_whole_window_whoever_draws() -> None:
    whole = [heard(step, whole_share=0.4).teacher_mel_BMF is None for step in range(200)]
    assert 0.3 < np.mean(whole) < 0.5
    assert whole == [heard(step, whole_share=0.4).teacher_mel_BMF is None for step in range(200)]


def test_states_from_a_cache_are_the_targets_and_never_a_cut_students(tiny_whisper_dir: Path) -> None:
    model = load_whisper(str(tiny_whisper_dir))
    encoder = FrozenEncoder(model.model.encoder)
    encoder.reads_cache = True
    positions = model.config.max_source_positions
    whole_BMF = torch.randn(2, model.config.num_mel_bins, 2 * positions)
    kept_BSD = torch.full((2, positions, model.config.d_model), 7.0)
    batch = Batch(["a", "b"], ["cs", "cs"], whole_BMF, LABELS_BU.clamp(min=0), LABELS_BU, 1.0, kept={"states_BSD": kept_BSD})
    assert bool((encoder.states(batch) == 7).all())
    cut = batch.changed(mel_BMF=whole_BMF[..., :40], teacher_mel_BMF=whole_BMF)
    assert bool((encoder.states(cut, for_targets=True) == 7).all())
    assert encoder.states(cut).shape[1] == 20


def index_of(lengths: list[int]) -> Index:
    ids = [f"{number:05d}" for number in range(len(lengths))]
    return Index(pa.table({"id": ids, "language": ["cs"] * len(ids), "n_tokens": pa.array(lengths, pa.int32())}))


def test_batches_of_like_length_take_each_utterance_once_and_differ_from_epoch_to_epoch() -> None:
    lengths = np.random.default_rng(0).integers(50, 1000, 403).astype(np.int32)
    order = EpochOrder(index_of(lengths.tolist()), seed=2, batch_size=10, lengths=lengths)
    plain = EpochOrder(index_of(lengths.tolist()), seed=2, batch_size=10)
    seen = []
    for epoch in range(3):
        batches = [order.global_batch(step) for step in range(41 * epoch, 41 * (epoch + 1))]
        assert [len(batch) for batch in batches] == [10] * 40 + [3]
        assert sorted(np.concatenate(batches)) == list(range(403))
        seen.append({frozenset(batch.tolist()) for batch in batches})
        means = [lengths[batch].mean() for batch in batches]
        assert means != sorted(means), "the batches themselves come in no order"
    assert len(seen[0] & seen[1]) < 5

    def waste(one: EpochOrder) -> float:
        batches = [lengths[one.global_batch(step)] for step in range(40)]
        return float(sum(batch.max() * len(batch) for batch in batches) / sum(batch.sum() for batch in batches))

    assert waste(order) < 1.1 < 1.5 < waste(plain)
    again = EpochOrder(index_of(lengths.tolist()), seed=2, batch_size=10, lengths=lengths)
    np.testing.assert_array_equal(again.global_batch(77), order.global_batch(77))
