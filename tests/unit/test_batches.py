"""Batches hold shifted labels or masked segments, padded to the batch only, and mels padded as Whisper pads."""

import numpy as np
import pyarrow as pa
import torch

from raykd.data.batches import IGNORED_LABEL, TextCollate, collate, placeholder
from raykd.data.corpus import TEXT_SCHEMA, Utterance
from raykd.data.masking import masked_positions
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


def segments(**tokens: list[int]) -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_pydict({"id": [name], "tokens": [ids]}, TEXT_SCHEMA) for name, ids in tokens.items()]


def test_segments_are_padded_and_masked() -> None:
    batch = TextCollate(PAD, 0.5, seed=1).batch(segments(a=[1, 2, 3, 4, 5, 6], b=[7, 8, 9]), epoch=4)
    assert batch.ids == ["a", "b"]
    assert batch.tokens_BT.tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 9, PAD, PAD, PAD]]
    assert batch.tokens_BT.dtype == batch.lengths_B.dtype == torch.int64
    assert batch.lengths_B.tolist() == [6, 3]
    assert batch.masked_BT[0].nonzero().flatten().tolist() == masked_positions(6, 3, 1, 4, "a").tolist()
    assert batch.masked_BT[1].nonzero().flatten().tolist() == masked_positions(3, 2, 1, 4, "b").tolist()


def test_masks_do_not_depend_on_the_rest_of_the_batch() -> None:
    collate_text = TextCollate(PAD, None, seed=1)
    alone = collate_text.batch(segments(b=[7, 8, 9]), epoch=0).masked_BT[0]
    together = collate_text.batch(segments(a=[1, 2, 3, 4], b=[7, 8, 9]), epoch=0).masked_BT
    assert together.sum(dim=1).tolist() == [1, 1]
    assert torch.equal(together[1, :3], alone)


def test_placeholder_of_text_masks_nothing() -> None:
    batch = TextCollate(PAD, 1.0, seed=1).placeholder(segments(a=[1, 2])[0])
    assert batch.ids == []
    assert batch.tokens_BT.tolist() == [[1, 2]]
    assert not batch.masked_BT.any()
