"""Rows of a prepared corpus to the tensors of one forward pass.

Shapes: B utterances or segments, M mel channels, F window frames, U label positions and T positions of a segment (the longest
of the batch, never the model's maximum).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raykd.config.data import SpecAugment
from raykd.data.augment import spec_augment
from raykd.data.corpus import Utterance, utterance_of
from raykd.data.masking import masked_counts, masked_positions
from raykd.data.mel import pad_mel

IGNORED_LABEL = -100
"""Label of positions without loss."""

Augment = Callable[[NDArray[np.float32], Utterance], None]
"""Changes an utterance's window_MF in place."""


@dataclass
class Batch:
    """One micro-batch of one worker."""

    ids: list[str]
    """Empty in a placeholder (`placeholder`)."""
    languages: list[str]
    mel_BMF: torch.Tensor
    """float32, padded to the model's window as Whisper's extractor pads."""
    decoder_input_BU: torch.Tensor
    """int64: each sequence without its last token, filled with the pad id."""
    labels_BU: torch.Tensor
    """int64: each sequence without its first token, filled with -100."""
    audio_s: float
    """Seconds of audio."""


@dataclass
class TextBatch:
    """One micro-batch of segments of one worker."""

    ids: list[str]
    """Empty in a placeholder (`Collate.placeholder`)."""
    tokens_BT: torch.Tensor
    """int64: the whole sequences as they are, nothing replaced, filled with the pad id."""
    lengths_B: torch.Tensor
    """int64: positions of each sequence before the filling."""
    masked_BT: torch.Tensor
    """bool: the positions to be guessed; none in a placeholder."""


class Collate(Protocol):
    """How rows of shards become a batch. Picklable."""

    def batch(self, rows: list[pa.RecordBatch], epoch: int) -> Any:
        """The batch of at least one row; each record batch holds one. What is drawn follows from (seed, epoch, id)."""
        ...

    def placeholder(self, row: pa.RecordBatch) -> Any:
        """A batch for a worker that has no row of a global batch: it passes through the model without loss or gradient.

        Workers must run the same number of forward and backward passes, or collective operations would wait for ever.
        """
        ...


@dataclass(frozen=True)
class SpeechCollate:
    """Rows of `corpus.SHARD_SCHEMA` to a `Batch`."""

    window_frames: int
    pad_id: int
    augment: SpecAugment | None
    seed: int

    def batch(self, rows: list[pa.RecordBatch], epoch: int) -> Batch:
        """`collate` of the utterances, with masks when SpecAugment is on."""

        def mask(window_MF: NDArray[np.float32], utterance: Utterance) -> None:
            assert self.augment is not None
            spec_augment(window_MF, utterance.mel.shape[1], self.augment, (self.seed, epoch, utterance.id))

        utterances = [utterance_of(row) for row in rows]
        return collate(utterances, self.window_frames, self.pad_id, mask if self.augment else None)

    def placeholder(self, row: pa.RecordBatch) -> Batch:
        """`placeholder` of the utterance."""
        return placeholder(utterance_of(row), self.window_frames, self.pad_id)


@dataclass(frozen=True)
class TextCollate:
    """Rows of `corpus.TEXT_SCHEMA` to a `TextBatch`."""

    pad_id: int
    mask_share: float | None
    """As in `masking.masked_counts`."""
    seed: int

    def batch(self, rows: list[pa.RecordBatch], epoch: int) -> TextBatch:
        """The segments, with the positions that this epoch masks."""
        batch = self._unmasked(rows)
        lengths = batch.lengths_B.numpy()
        counts = masked_counts(lengths, self.mask_share)
        masked_BT = batch.masked_BT.numpy()
        for number, name in enumerate(batch.ids):
            masked_BT[number, masked_positions(int(lengths[number]), int(counts[number]), self.seed, epoch, name)] = True
        return batch

    def placeholder(self, row: pa.RecordBatch) -> TextBatch:
        """The segment without id and without a masked position."""
        batch = self._unmasked([row])
        batch.ids = []
        return batch

    def _unmasked(self, rows: list[pa.RecordBatch]) -> TextBatch:
        sequences = [row.column("tokens")[0].values.to_numpy() for row in rows]
        lengths_B = torch.tensor([len(sequence) for sequence in sequences])
        tokens_BT = np.full((len(rows), int(lengths_B.max())), self.pad_id, np.int64)
        for number, sequence in enumerate(sequences):
            tokens_BT[number, : len(sequence)] = sequence
        return TextBatch(
            ids=[row.column("id")[0].as_py() for row in rows],
            tokens_BT=torch.from_numpy(tokens_BT),
            lengths_B=lengths_B,
            masked_BT=torch.zeros(tokens_BT.shape, dtype=torch.bool),
        )


def collate(utterances: Sequence[Utterance], window_frames: int, pad_id: int, augment: Augment | None = None) -> Batch:
    """The batch of at least one utterance."""
    longest = max(len(utterance.tokens) for utterance in utterances) - 1
    shape_BMF = (len(utterances), utterances[0].mel.shape[0], window_frames)
    mel_BMF = np.empty(shape_BMF, np.float32)
    decoder_input_BU = np.full((len(utterances), longest), pad_id, np.int64)
    labels_BU = np.full((len(utterances), longest), IGNORED_LABEL, np.int64)
    for row, utterance in enumerate(utterances):
        pad_mel(utterance.mel, window_frames, out=mel_BMF[row])
        if augment is not None:
            augment(mel_BMF[row], utterance)
        length = len(utterance.tokens) - 1
        decoder_input_BU[row, :length] = utterance.tokens[:-1]
        labels_BU[row, :length] = utterance.tokens[1:]
    return Batch(
        ids=[utterance.id for utterance in utterances],
        languages=[utterance.language for utterance in utterances],
        mel_BMF=torch.from_numpy(mel_BMF),
        decoder_input_BU=torch.from_numpy(decoder_input_BU),
        labels_BU=torch.from_numpy(labels_BU),
        audio_s=sum(utterance.duration_s for utterance in utterances),
    )


def placeholder(utterance: Utterance, window_frames: int, pad_id: int) -> Batch:
    """A batch of one utterance that counts for nothing (`Collate.placeholder`)."""
    batch = collate([utterance], window_frames, pad_id)
    return Batch([], [], batch.mel_BMF, batch.decoder_input_BU, torch.full_like(batch.labels_BU, IGNORED_LABEL), 0.0)
