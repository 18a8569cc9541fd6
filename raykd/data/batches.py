"""Rows of a prepared corpus to the tensors of one forward pass.

Shapes: B utterances or segments, M mel channels, F window frames, S encoder positions (two frames each), U label positions and
T positions of a segment (the longest of the batch, never the model's maximum).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raykd.data.corpus import Utterance, utterance_of
from raykd.data.masking import masked_counts, masked_positions
from raykd.data.mel import pad_mel
from raykd.data.token_map import TokenMap

IGNORED_LABEL = -100
"""Label of positions without loss."""

RowKey = tuple[int, int, str]
"""(seed of the run, epoch, id of the utterance): what random changes of an utterance follow from."""
RowChange = Callable[[NDArray[np.float32], int, RowKey], None]
"""Changes an utterance's window_MF in place; the second argument is the number of frames that are not padding."""
Contexts = Literal["all", "gold", "sampled"]
"""Utterances by what the decoder reads: any, the labels, or what the student itself has said (`parts.contexts`)."""


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
    """int64: each sequence without its first token, filled with -100, as a prompt is."""
    audio_s: float
    """Seconds of audio."""
    frames: list[int] = field(default_factory=list)
    """Mel frames of each utterance before it was padded; empty in a placeholder."""
    longest_frames: int = 0
    """Mel frames of the longest utterance of the whole global batch, or of this one where it is alone."""
    sampled_B: torch.Tensor | None = None
    """bool: utterances whose decoder input (and `labels_BU`) is what the student itself has said; None: none is."""
    teacher_mel_BMF: torch.Tensor | None = None
    """What the targets hear, where it is another mel than the student's."""
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    """What was read from a cache beside the utterances, by name (`data.teacher_cache.CacheReader`)."""
    valid_N: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """int64: places in the flattened label positions that are no filling. Made from `labels_BU`."""
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What was computed for this batch and may be asked for again, such as encoder states."""

    def __post_init__(self) -> None:
        if self.valid_N.dtype != torch.int64:
            self.valid_N = (self.labels_BU.flatten() != IGNORED_LABEL).nonzero().squeeze(1)

    @property
    def labels_N(self) -> torch.Tensor:
        """The labels at the valid positions, utterance after utterance."""
        return self.labels_BU.flatten()[self.valid_N]

    @property
    def utterance_N(self) -> torch.Tensor:
        """The row of the batch that each valid position belongs to."""
        return self.valid_N // self.labels_BU.shape[1]

    def mask_N(self, contexts: Contexts) -> torch.Tensor | None:
        """bool: which valid positions are in such utterances; None: all of them."""
        if contexts == "all" or (self.sampled_B is None and contexts == "gold"):
            return None
        sampled_B = torch.zeros(len(self.labels_BU), dtype=torch.bool) if self.sampled_B is None else self.sampled_B
        wanted_B = sampled_B if contexts == "sampled" else ~sampled_B
        return wanted_B.to(self.valid_N.device)[self.utterance_N]

    def n_valid(self, contexts: Contexts = "all") -> int:
        """Valid positions in such utterances."""
        mask_N = self.mask_N(contexts)
        return len(self.valid_N) if mask_N is None else int(mask_N.sum())

    def changed(self, **fields: Any) -> "Batch":
        """The batch with other tensors; what was remembered or follows from the labels is made anew."""
        if "labels_BU" in fields:
            fields = {"valid_N": torch.empty(0), **fields}
        return replace(self, memo={}, **fields)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The batch in page-locked memory: a GPU fetches it from there while the CPU goes on."""
        return self._moved(torch.Tensor.pin_memory)

    def _moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        names = ("mel_BMF", "decoder_input_BU", "labels_BU", "sampled_B", "teacher_mel_BMF", "valid_N")
        tensors = {name: getattr(self, name) for name in names}
        moved: dict[str, Any] = {name: move(tensor) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, memo={}, kept={name: move(tensor) for name, tensor in self.kept.items()}, **moved)


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

    @property
    def labels_N(self) -> torch.Tensor:
        """The tokens at the masked positions, segment after segment."""
        return self.tokens_BT[self.masked_BT]

    def mask_N(self, contexts: Contexts) -> None:
        """As `Batch.mask_N`: a text is always its own."""

    def n_valid(self, contexts: Contexts = "all") -> int:
        """Masked positions."""
        return int(self.masked_BT.sum())

    def to(self, device: torch.device) -> "TextBatch":
        """The batch on a device."""
        return TextBatch(self.ids, *(t.to(device) for t in (self.tokens_BT, self.lengths_B, self.masked_BT)))

    def pinned(self) -> "TextBatch":
        """As it is: it is small."""
        return self


class BatchReader(Protocol):
    """Reads what a part wants beside the utterances. Picklable."""

    @property
    def views(self) -> int:
        """Ways that random changes of the speech fall out, over and over: epoch e draws as epoch e modulo this."""
        ...

    def read(self, ids: Sequence[str], epoch: int, placeholder: bool = False) -> Mapping[str, torch.Tensor]:
        """By name. Of a placeholder, whatever belongs to label positions has none."""
        ...


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
    changes: tuple[RowChange, ...]
    """What is done to each utterance in turn, such as SpecAugment."""
    seed: int
    student_changes: tuple[RowChange, ...] = ()
    """What is done after that to the mel that the student hears."""
    reader: BatchReader | None = None
    """What is read beside the utterances."""
    tokens: TokenMap | None = None
    """To the ids of the models, where they are not the corpus's; `pad_id` is theirs."""

    def batch(self, rows: list[pa.RecordBatch], epoch: int) -> Batch:
        """`collate` of the utterances, changed, with what is read beside them."""
        batch = collate([self._utterance(row) for row in rows], self.window_frames, self.pad_id)
        view = epoch
        if self.reader is not None:
            view = epoch % self.reader.views
            batch.kept = self.reader.read(batch.ids, view)
        n_frames = [row.column("n_frames")[0].as_py() for row in rows]
        self._change(batch, n_frames, view, self.changes)
        if self.student_changes:
            batch.teacher_mel_BMF = batch.mel_BMF.clone()
            self._change(batch, n_frames, epoch, self.student_changes)
        return batch

    def _change(self, batch: Batch, n_frames: Sequence[int], epoch: int, changes: Sequence[RowChange]) -> None:
        for number, name in enumerate(batch.ids):
            for change in changes:
                change(batch.mel_BMF[number].numpy(), n_frames[number], (self.seed, epoch, name))

    def placeholder(self, row: pa.RecordBatch) -> Batch:
        """`placeholder` of the utterance."""
        utterance = self._utterance(row)
        batch = placeholder(utterance, self.window_frames, self.pad_id)
        if self.reader is not None:
            batch.kept = self.reader.read([utterance.id], 0, placeholder=True)
        return batch

    def _utterance(self, row: pa.RecordBatch) -> Utterance:
        utterance = utterance_of(row)
        return utterance if self.tokens is None else self.tokens.utterance(utterance)


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


def collate(utterances: Sequence[Utterance], window_frames: int, pad_id: int) -> Batch:
    """The batch of at least one utterance."""
    longest = max(len(utterance.tokens) for utterance in utterances) - 1
    shape_BMF = (len(utterances), utterances[0].mel.shape[0], window_frames)
    mel_BMF = np.empty(shape_BMF, np.float32)
    decoder_input_BU = np.full((len(utterances), longest), pad_id, np.int64)
    labels_BU = np.full((len(utterances), longest), IGNORED_LABEL, np.int64)
    for row, utterance in enumerate(utterances):
        pad_mel(utterance.mel, window_frames, out=mel_BMF[row])
        length = len(utterance.tokens) - 1
        decoder_input_BU[row, :length] = utterance.tokens[:-1]
        labels_BU[row, utterance.n_prompt : length] = utterance.tokens[utterance.n_prompt + 1 :]
    return Batch(
        ids=[utterance.id for utterance in utterances],
        languages=[utterance.language for utterance in utterances],
        mel_BMF=torch.from_numpy(mel_BMF),
        decoder_input_BU=torch.from_numpy(decoder_input_BU),
        labels_BU=torch.from_numpy(labels_BU),
        audio_s=sum(utterance.duration_s for utterance in utterances),
        frames=[utterance.mel.shape[1] for utterance in utterances],
        longest_frames=max(utterance.mel.shape[1] for utterance in utterances),
    )


def placeholder(utterance: Utterance, window_frames: int, pad_id: int) -> Batch:
    """A batch of one utterance that counts for nothing (`Collate.placeholder`)."""
    batch = collate([utterance], window_frames, pad_id)
    return Batch([], [], batch.mel_BMF, batch.decoder_input_BU, torch.full_like(batch.labels_BU, IGNORED_LABEL), 0.0)


def counted_positions(
    batch: Batch, languages: frozenset[str], with_padding: bool = False
) -> dict[Literal["encoder", "decoder"], torch.Tensor]:
    """bool masks, encoder's BS and decoder's BU, of the positions of utterances in some languages: those within the clip and up
    to the last label, or all.
    """
    device, rows = batch.mel_BMF.device, len(batch.mel_BMF)
    positions_S = torch.arange(-(-batch.mel_BMF.shape[-1] // 2), device=device)
    heard_BS = positions_S < (torch.tensor(batch.frames or [0] * rows, device=device)[:, None] + 1) // 2
    read_BU = (batch.labels_BU != IGNORED_LABEL).flip(1).cummax(1).values.flip(1)
    own_B = torch.tensor([language in languages for language in batch.languages or [""] * rows], device=device)
    if with_padding:
        heard_BS, read_BU = torch.ones_like(heard_BS), torch.ones_like(read_BU)
    return {"encoder": heard_BS & own_B[:, None], "decoder": read_BU & own_B[:, None]}
