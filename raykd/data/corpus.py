"""A prepared corpus: utterances as mel and label ids in shards with random access, and the index of them.

A corpus is a folder on any pyarrow filesystem:

- `shard-*.arrow`: Arrow IPC files, uncompressed, one record batch an utterance, so that a row is found in O(1);
- `index.parquet`: one row an utterance, sorted by id;
- `rejects.parquet`: the rows that could not be used, with reason;
- `corpus.json`: counts and what the corpus was made from. It is written last; a folder without it is no corpus.

Shapes: M mel channels, F frames.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raykd import storage
from raykd.errors import UserError

INDEX_FILE = "index.parquet"
REJECTS_FILE = "rejects.parquet"
SUMMARY_FILE = "corpus.json"

SHARD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("text", pa.string()),
        ("duration_s", pa.float64()),
        ("n_frames", pa.int32()),
        ("mel", pa.binary()),
        ("tokens", pa.list_(pa.int32())),
    ]
)
_OPEN_SHARDS = 64
"""Shards kept open in a process."""


@dataclass(frozen=True)
class Utterance:
    """One prepared utterance."""

    id: str
    language: str
    text: str
    duration_s: float
    mel: NDArray[np.float16]
    """mel_MF of the frames that touch audio (`data.mel.log_mel`); a read-only view of the shard."""
    tokens: list[int]
    """Prefix, text and end-of-text ids."""


@dataclass(frozen=True)
class Index:
    """The utterances of a split, sorted by id. A position in it is an utterance's number everywhere else."""

    table: pa.Table

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """Utterance ids, ascending."""
        return self._column("id")

    @cached_property
    def languages(self) -> NDArray[np.object_]:
        """Language codes."""
        return self._column("language")

    @cached_property
    def texts(self) -> NDArray[np.object_]:
        """Transcripts."""
        return self._column("text")

    @cached_property
    def duration_s(self) -> NDArray[np.float64]:
        """Seconds of audio."""
        return self._column("duration_s")

    @cached_property
    def n_frames(self) -> NDArray[np.int32]:
        """Mel frames stored."""
        return self._column("n_frames")

    @cached_property
    def n_tokens(self) -> NDArray[np.int32]:
        """Valid label positions: one less than the length of the token sequence."""
        return self._column("n_tokens")

    @cached_property
    def shard_names(self) -> list[str]:
        """Names of the shards that `shard` counts."""
        return self._shards.dictionary.to_pylist()

    @cached_property
    def shard(self) -> NDArray[np.int32]:
        """Which of `shard_names` holds the utterance."""
        return self._shards.indices.to_numpy()

    @cached_property
    def row(self) -> NDArray[np.int32]:
        """Number of the utterance in its shard."""
        return self._column("row")

    @cached_property
    def _shards(self) -> pa.DictionaryArray:
        return self.table.column("shard").combine_chunks().dictionary_encode()

    def _column(self, name: str) -> NDArray[Any]:
        return self.table.column(name).to_numpy()


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus. Picklable and small: it holds the path, not the data."""

    path: str
    summary: dict[str, Any]
    """`corpus.json`: key, utterances, rejected, hours, per split and language, pad_id, versions."""

    @property
    def key(self) -> str:
        """Hash of what the corpus was made from; the same for every run with the same data, filters and tokenizer."""
        return self.summary["key"]

    @property
    def pad_id(self) -> int:
        """Token id that fills decoder inputs after their end."""
        return self.summary["pad_id"]

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have utterances."""
        return list(self.summary["splits"])

    def index(self, split: str) -> Index:
        """The utterances of a split, sorted by id; `all` for those of every split.

        Raises:
            UserError: there is no such split.
        """
        if split != "all" and split not in self.splits:
            raise UserError(f"the data has no split {split!r}; it has {', '.join(self.splits)}")
        table = self._table(INDEX_FILE)
        if split != "all":
            table = table.filter(pc.equal(table.column("split"), split))
        return Index(table)

    def rejects(self) -> pa.Table:
        """The rows that could not be used: id, reason, detail, path, sorted by id."""
        return self._table(REJECTS_FILE)

    def _table(self, name: str) -> pa.Table:
        filesystem, inner = storage.filesystem_of(storage.join(self.path, name))
        return pq.read_table(inner, filesystem=filesystem)


def open_corpus(path: str) -> Corpus | None:
    """The finished corpus in a folder, or None when there is none."""
    summary_path = storage.join(path, SUMMARY_FILE)
    if not storage.exists(summary_path):
        return None
    return Corpus(path, json.loads(storage.read_bytes(summary_path)))


def read_utterances(corpus_path: str, index: Index, positions: Sequence[int] | NDArray[np.int64]) -> list[Utterance]:
    """The utterances at these positions of the index, in their order."""
    rows = read_rows(corpus_path, index.shard_names, index.shard[positions], index.row[positions])
    return [utterance_of(row) for row in rows]


def read_rows(corpus_path: str, shard_names: Sequence[str], shards: Iterable[int], rows: Iterable[int]) -> list[pa.RecordBatch]:
    """One record batch of `SHARD_SCHEMA` for each (shard, row). Local shards are memory-mapped and not copied."""
    return [
        _open_shard(storage.join(corpus_path, shard_names[shard])).get_batch(int(row))
        for shard, row in zip(shards, rows, strict=True)
    ]


def utterance_of(row: pa.RecordBatch) -> Utterance:
    """The utterance in a record batch of one row."""
    values = {name: row.column(name)[0] for name in SHARD_SCHEMA.names}
    mel = np.frombuffer(values["mel"].as_buffer(), np.float16)
    return Utterance(
        id=values["id"].as_py(),
        language=values["language"].as_py(),
        text=values["text"].as_py(),
        duration_s=values["duration_s"].as_py(),
        mel=mel.reshape(-1, values["n_frames"].as_py()),
        tokens=values["tokens"].as_py(),
    )


@lru_cache(maxsize=_OPEN_SHARDS)
def _open_shard(path: str) -> pa.ipc.RecordBatchFileReader:
    if storage.is_remote(path):
        filesystem, inner = storage.filesystem_of(path)
        return pa.ipc.open_file(filesystem.open_input_file(inner))
    return pa.ipc.open_file(pa.memory_map(storage.filesystem_of(path)[1]))
