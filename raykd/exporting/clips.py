"""Clips with sound and text, to try an export on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raykd import storage
from raykd.config.data import DataConfig
from raykd.data.audio import AudioError
from raykd.data.corpus import Utterance
from raykd.data.format import SAMPLE_RATE
from raykd.data.mel import log_mel
from raykd.data.row_audio import samples_of
from raykd.data.sources import all_parts
from raykd.data.text import clean
from raykd.errors import UserError


@dataclass(frozen=True)
class Clip:
    """Some speech and what is said."""

    id: str
    language: str
    text: str
    samples_S: NDArray[np.float32]
    """16 kHz."""

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return len(self.samples_S) / SAMPLE_RATE

    def utterance(self, n_mels: int, window_frames: int) -> Utterance:
        """As the recogniser takes it, without labels."""
        mel_MF = log_mel(self.samples_S, n_mels, window_frames)
        return Utterance(self.id, self.language, self.text, self.duration_s, mel_MF, tokens=[0])


def clips_of(data: DataConfig, longest_s: float, count: int, ids: frozenset[str] | None = None) -> list[Clip]:
    """The first usable clips of the sources, or those of these ids, in the sources' order.

    Raises:
        UserError: there is none.
    """
    found: list[Clip] = []
    for row in _rows(data):
        if len(found) == (count if ids is None else len(ids)):
            break
        if row["problem"] or (ids is not None and row["id"] not in ids):
            continue
        try:
            samples_S = samples_of(row, longest_s)
        except AudioError:
            continue
        found.append(Clip(row["id"], row["language"] or data.language or "en", clean(row["text"]), samples_S))
    if not found:
        raise UserError("data.source: no clip of it can be read; name some speech with --data SOURCE")
    return found


def tested_ids(evaluation: str, count: int) -> frozenset[str]:
    """Ids of some utterances that a run's student was tested on, evenly spaced by id. `evaluation`: the Parquet file."""
    filesystem, inner = storage.filesystem_of(evaluation)
    ids = pq.read_table(inner, columns=["id"], filesystem=filesystem).column("id").to_pylist()
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return frozenset(ids[place] for place in places)


def _rows(data: DataConfig) -> Iterator[dict[str, Any]]:
    for part in all_parts(data):
        yield from part.rows()
