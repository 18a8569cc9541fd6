"""Utterances to the tensors of one forward pass.

Shapes: B utterances, M mel channels, F window frames, U label positions (the longest of the batch, never the model's maximum).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raykd.data.corpus import Utterance
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
    """A batch for a worker that has no utterance of a global batch: it passes through the model without label or gradient.

    Workers must run the same number of forward and backward passes, or collective operations would wait for ever.
    """
    batch = collate([utterance], window_frames, pad_id)
    return Batch([], [], batch.mel_BMF, batch.decoder_input_BU, torch.full_like(batch.labels_BU, IGNORED_LABEL), 0.0)
