"""Batches hold shifted labels, padded to the batch only, and mels padded as Whisper pads."""

import numpy as np
import torch

from raykd.data.batches import IGNORED_LABEL, collate, placeholder
from raykd.data.corpus import Utterance
from raykd.data.mel import pad_mel

PAD = 50257


def utterance(name: str, frames: int, tokens: list[int]) -> Utterance:
    mel = np.random.default_rng(frames).normal(size=(80, frames)).astype(np.float16)
    return Utterance(id=name, language="cs", text=name, duration_s=frames / 100, mel=mel, tokens=tokens)


SHORT = utterance("short", 120, [1, 2, 3, 9])
LONG = utterance("long", 500, [1, 2, 3, 4, 5, 9])


def test_labels_are_the_decoder_input_shifted_by_one() -> None:
    batch = collate([SHORT, LONG], window_frames=500, pad_id=PAD)
    assert batch.ids == ["short", "long"]
    assert batch.languages == ["cs", "cs"]
    assert batch.decoder_input_BU.tolist() == [[1, 2, 3, PAD, PAD], [1, 2, 3, 4, 5]]
    assert batch.labels_BU.tolist() == [[2, 3, 9, IGNORED_LABEL, IGNORED_LABEL], [2, 3, 4, 5, 9]]
    assert batch.audio_s == 6.2


def test_labels_are_padded_to_the_batch_and_mels_to_the_window() -> None:
    batch = collate([SHORT], window_frames=500, pad_id=PAD)
    assert batch.labels_BU.shape == (1, 3)
    assert batch.mel_BMF.shape == (1, 80, 500)
    assert batch.mel_BMF.dtype == torch.float32
    np.testing.assert_array_equal(batch.mel_BMF[0].numpy(), pad_mel(SHORT.mel, 500))


def test_augmentation_does_not_change_what_padding_is() -> None:
    def silence_the_loudest(window_MF: np.ndarray, utterance: Utterance) -> None:
        window_MF[:, : utterance.mel.shape[1]] = 0.0

    batch = collate([SHORT], window_frames=500, pad_id=PAD, augment=silence_the_loudest)
    assert (batch.mel_BMF[0, :, :120] == 0).all()
    np.testing.assert_array_equal(batch.mel_BMF[0, :, 120:].numpy(), pad_mel(SHORT.mel, 500)[:, 120:])


def test_placeholder_counts_for_nothing() -> None:
    batch = placeholder(SHORT, window_frames=500, pad_id=PAD)
    assert batch.ids == []
    assert batch.audio_s == 0
    assert batch.mel_BMF.shape == (1, 80, 500)
    assert (batch.labels_BU == IGNORED_LABEL).all()
