"""Batches hold shifted labels or masked segments, padded to the batch only, and mels padded as Whisper pads."""

import numpy as np
import pyarrow as pa
import torch

from raykd.data.batches import IGNORED_LABEL, RowKey, SpeechCollate, TextCollate, collate, placeholder
from raykd.data.corpus import SHARD_SCHEMA, TEXT_SCHEMA, Utterance
from raykd.data.masking import masked_positions
from raykd.data.mel import pad_mel

PAD = 50257


def utterance(name: str, frames: int, tokens: list[int]) -> Utterance:
    mel = np.random.default_rng(frames).normal(size=(80, frames)).astype(np.float16)
    return Utterance(id=name, language="cs", text=name, duration_s=frames / 100, mel=mel, tokens=tokens)


def row_of(one: Utterance) -> pa.RecordBatch:
    row = {**vars(one), "n_frames": one.mel.shape[1], "mel": one.mel.tobytes()}
    return pa.RecordBatch.from_pylist([{name: row[name] for name in SHARD_SCHEMA.names}], SHARD_SCHEMA)


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
    keys: list[RowKey] = []

    def silence(window_MF: np.ndarray, n_frames: int, key: RowKey) -> None:
        window_MF[:, :n_frames] = 0.0
        keys.append(key)

    def count(window_MF: np.ndarray, n_frames: int, key: RowKey) -> None:
        window_MF[:, :n_frames] += len(keys)

    batch = SpeechCollate(500, PAD, (silence, count), seed=7).batch([row_of(SHORT)], epoch=3)
    assert keys == [(7, 3, "short")]
    assert (batch.mel_BMF[0, :, :120] == 1).all(), "each change in turn"
    np.testing.assert_array_equal(batch.mel_BMF[0, :, 120:].numpy(), pad_mel(SHORT.mel, 500)[:, 120:])


def test_placeholder_counts_for_nothing() -> None:
    batch = placeholder(SHORT, window_frames=500, pad_id=PAD)
    assert batch.ids == []
    assert batch.audio_s == 0
    assert batch.mel_BMF.shape == (1, 80, 500)
    assert (batch.labels_BU == IGNORED_LABEL).all()


def test_valid_positions_are_counted_by_what_the_decoder_reads() -> None:
    batch = collate([SHORT, LONG, SHORT], window_frames=500, pad_id=PAD)
    assert batch.labels_N.tolist() == [2, 3, 9, 2, 3, 4, 5, 9, 2, 3, 9]
    assert batch.utterance_N.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert [batch.n_valid(contexts) for contexts in ("all", "gold", "sampled")] == [11, 11, 0]
    batch = batch.changed(sampled_B=torch.tensor([False, True, False]))
    assert [batch.n_valid(contexts) for contexts in ("all", "gold", "sampled")] == [11, 6, 5]
    assert batch.mask_N("all") is None
    sampled_N, gold_N = batch.mask_N("sampled"), batch.mask_N("gold")
    assert sampled_N is not None
    assert gold_N is not None
    assert sampled_N.tolist() == [utterance == 1 for utterance in batch.utterance_N.tolist()]
    assert torch.equal(gold_N, ~sampled_N)


def test_a_changed_batch_forgets_what_followed_from_what_it_was() -> None:
    batch = collate([SHORT, LONG], window_frames=500, pad_id=PAD)
    batch.memo["encoder"] = "states"
    assert batch.valid_N.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    shorter_BU = batch.labels_BU.index_fill(1, torch.tensor([1]), IGNORED_LABEL)
    changed = batch.changed(labels_BU=shorter_BU)
    assert changed.valid_N.tolist() == [0, 2, 5, 7, 8, 9]
    assert changed.memo == {}
    assert changed.mel_BMF is batch.mel_BMF
    assert batch.changed(mel_BMF=batch.mel_BMF + 1).valid_N is batch.valid_N
    assert batch.memo == {"encoder": "states"}


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
