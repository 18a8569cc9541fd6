"""A prepared corpus: utterances (mel and label ids) or text segments (ids) in shards with random access, and their index.

A corpus is a folder on any pyarrow filesystem:

- `shard-*.arrow`: Arrow IPC files, uncompressed, as many rows to a record batch as `rows_per_batch` in the summary says (one
  utterance, or some hundred segments), so that a row is found in O(1);
- `index.parquet`: one row an utterance or segment, sorted by id;
- `rejects.parquet`: the rows that could not be used, with reason;
- `corpus.json`: counts, what the corpus was made from and sizes of files. It is written last; a folder without it is no corpus.

Shapes: M mel channels, F frames.
"""

import json
import logging
from collections.abc import Sequence
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
WORDS_FILE = "words.txt.gz"
"""Distinct words of a text corpus, as they are written in it, one a line, sorted."""

SHARD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("text", pa.string()),
        ("duration_s", pa.float64()),
        ("n_frames", pa.int32()),
        ("mel", pa.binary()),
        ("tokens", pa.list_(pa.int32())),
        ("n_prompt", pa.int32()),
    ]
)
TEXT_SCHEMA = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.int32()))])
"""Shards of a text corpus."""
_SUMMARY_KEYS = {"key", "splits", "rejected", "rejects", "pad_id"}
"""What is read from every summary."""
_OPEN_SHARDS = 64
"""Shards kept open in a process."""
_log = logging.getLogger(__name__)


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
    """Prefix, text and end-of-text ids; before them, in a pack, what was said before."""
    n_prompt: int = 0
    """Tokens before the prefix. They are read by the decoder, and carry no loss."""


@dataclass(frozen=True)
class InShards:
    """A table whose rows say where each of them lies in the shards of a store."""

    table: pa.Table

    @cached_property
    def shard_names(self) -> list[str]:
        """Names of the shards that `shard` counts."""
        return self._shards.dictionary.to_pylist()

    @cached_property
    def shard(self) -> NDArray[np.int32]:
        """Which of `shard_names` holds the row."""
        return self._shards.indices.to_numpy()

    @cached_property
    def row(self) -> NDArray[np.int32]:
        """Number of the row in its shard."""
        return self.table.column("row").to_numpy()

    @cached_property
    def _shards(self) -> pa.DictionaryArray:
        return self.table.column("shard").combine_chunks().dictionary_encode()


class Index(InShards):
    """The utterances or segments of a split, sorted by id. A position in it is a row's number everywhere else.

    A text corpus has no column for text, duration and frames.
    """

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """Ids, ascending."""
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
    def recordings(self) -> NDArray[np.object_]:
        """What each belongs to: a recording, a speaker or a folder; None where nothing is known."""
        return self._column("recording")

    @cached_property
    def start_s(self) -> NDArray[np.float64]:
        """Where each begins in its recording, in seconds; NaN where it is a file of its own."""
        return self._column("start_s")

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
        """Positions with loss of an utterance, one less than the length of its token sequence, without prompt; that length of a
        segment."""
        return self._column("n_tokens")

    @cached_property
    def n_utterances(self) -> NDArray[np.int32]:
        """Utterances in each row: 1, unless rows are packs of them (`data.packs`)."""
        return self._column("n_utterances") if "n_utterances" in self.table.column_names else np.ones(len(self), np.int32)

    def _column(self, name: str) -> NDArray[Any]:
        return self.table.column(name).to_numpy()


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus. Picklable and small: it holds the path, not the data."""

    path: str
    summary: dict[str, Any]
    """`corpus.json`: key, counts (utterances and hours, or segments), per split and language, rejected, pad_id, versions."""

    @property
    def key(self) -> str:
        """Hash of what the corpus was made from; the same for every run with the same data, filters and tokenizer."""
        return self.summary["key"]

    @property
    def pad_id(self) -> int:
        """Token id that fills decoder inputs after their end."""
        return self.summary["pad_id"]

    @property
    def rows_per_batch(self) -> int:
        """Rows of a record batch in the shards."""
        return self.summary.get("rows_per_batch", 1)

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have utterances."""
        return list(self.summary["splits"])

    def tests(self, wanted: Sequence[str]) -> list[str]:
        """Of the splits that a model is to be tested on those that there are; dev where there is none."""
        return [split for split in wanted if split in self.splits] or ["dev"]

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
    """The finished corpus in a folder, or None when there is none. A damaged one is set aside, with a warning, and is none.

    Raises:
        UserError: what is there cannot be read or moved now, be it damaged or not.
    """
    summary_path = storage.join(path, SUMMARY_FILE)
    try:
        if not storage.exists(summary_path):
            return None
        try:
            summary = json.loads(storage.read_bytes(summary_path))
            _verify(path, summary)
        except (FileNotFoundError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            aside = storage.set_aside(path)
            _log.warning("%s: damaged (%s); %s and made again", path, reason, f"kept as {aside}" if aside else "removed")
            return None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be read ({reason}); check its permissions and try again") from None
    return Corpus(path, summary)


def file_sizes(path: str, index: pa.Table) -> dict[str, int]:
    """Size in bytes of each file of a corpus whose content its key decides; they are kept in the summary as `files`."""
    names = {*pc.unique(index.column("shard")).to_pylist(), WORDS_FILE}
    return {name: size for name, size in sorted(storage.sizes_in(path).items()) if name in names}


def _verify(path: str, summary: Any) -> None:
    """Look at everything in a corpus but the rows themselves.

    Raises:
        ValueError: something is missing, or is not what the summary says.
        pa.ArrowException: the index or the rejects are damaged.
    """
    lacking = _SUMMARY_KEYS - summary.keys() if isinstance(summary, dict) else _SUMMARY_KEYS
    if lacking:
        raise ValueError(f"{SUMMARY_FILE} has no {', '.join(sorted(lacking))}")
    index = _parsed(path, INDEX_FILE)
    _parsed(path, REJECTS_FILE)
    rows = summary.get("rows", summary.get("utterances", summary.get("segments")))
    if index.num_rows != rows:
        raise ValueError(f"{INDEX_FILE} has {index.num_rows} rows, and {SUMMARY_FILE} says {rows}")
    found = storage.sizes_in(path)
    sizes = summary.get("files", {})
    for name in {*pc.unique(index.column("shard")).to_pylist(), *sizes}:
        size = sizes.get(name)  # a corpus of an older version has none
        if not found.get(name) or size not in (None, found[name]):
            raise ValueError(f"{name} has {found.get(name, 0)} bytes" + (f" instead of {size}" if size else ""))


def _parsed(path: str, name: str) -> pa.Table:
    """A table of a corpus. Its bytes are read first: what fails then is the file, and no filesystem."""
    data = storage.read_bytes(storage.join(path, name))
    try:
        return pq.read_table(pa.BufferReader(data))
    except OSError as error:  # so says pyarrow of a damaged page
        raise ValueError(f"{name}: {error}") from None


def write_parquet(table: pa.Table, path: str) -> None:
    """Write a table so that readers see a whole file or none."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    storage.write_bytes(path, buffer.getvalue().to_pybytes())


def read_utterances(corpus_path: str, index: Index, positions: Sequence[int] | NDArray[np.int64]) -> list[Utterance]:
    """The utterances at these positions of the index, in their order."""
    rows = read_rows(corpus_path, index.shard_names, index.shard[positions], index.row[positions])
    return [utterance_of(row) for row in rows]


def read_rows(
    corpus_path: str,
    shard_names: Sequence[str],
    shards: NDArray[np.integer[Any]],
    rows: NDArray[np.integer[Any]],
    rows_per_batch: int = 1,
) -> list[pa.RecordBatch]:
    """One record batch of one row for each (shard, row). Rows of local shards with one a batch are mapped, not copied."""
    if rows_per_batch == 1:
        return [
            _open_shard(storage.join(corpus_path, shard_names[shard])).get_batch(int(row))
            for shard, row in zip(shards, rows, strict=True)
        ]
    found: list[pa.RecordBatch] = [None] * len(rows)
    numbers = rows // rows_per_batch
    sorted_by_place = np.lexsort((numbers, shards))
    borders = np.flatnonzero(np.diff(shards[sorted_by_place]) | np.diff(numbers[sorted_by_place])) + 1
    for wanted in np.split(sorted_by_place, borders):
        shard = _open_shard(storage.join(corpus_path, shard_names[shards[wanted[0]]]), whole=True)
        # Copied, so that a row does not keep its whole batch in memory.
        taken = shard.get_batch(int(numbers[wanted[0]])).take(pa.array(rows[wanted] % rows_per_batch))
        for place, position in enumerate(wanted):
            found[position] = taken.slice(place, 1)
    return found


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
        n_prompt=values["n_prompt"].as_py(),
    )


@lru_cache(maxsize=_OPEN_SHARDS)
def _open_shard(path: str, whole: bool = False) -> pa.ipc.RecordBatchFileReader:
    """A shard; `whole`: a remote one is fetched in one request, because it is small and much of it is wanted."""
    if not storage.is_remote(path):
        return pa.ipc.open_file(pa.memory_map(storage.filesystem_of(path)[1]))
    if whole:
        return pa.ipc.open_file(storage.read_bytes(path))
    filesystem, inner = storage.filesystem_of(path)
    return pa.ipc.open_file(filesystem.open_input_file(inner))
