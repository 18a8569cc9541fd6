"""From a prepared corpus to one whose training utterances are packs (`data.packs`), on the Ray cluster, once for each content.

It has the files of any other corpus (`data.corpus`), so that whatever reads one reads it, and `packs.parquet`: the utterances
of each pack. Rows of other splits are copied.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raykd import storage
from raykd.config.data import DataConfig, PackConfig
from raykd.data.context import ray_data_settings
from raykd.data.corpus import (
    INDEX_FILE,
    REJECTS_FILE,
    SHARD_SCHEMA,
    SUMMARY_FILE,
    Corpus,
    Index,
    Utterance,
    file_sizes,
    open_corpus,
    read_utterances,
    write_parquet,
)
from raykd.data.format import SpeechFormat
from raykd.data.packs import Pack, Room, joined, pack_id, plan_packs, reads_before
from raykd.data.prepare import INDEX_COLUMNS, corpus_path, make_corpus_dir, tables_of
from raykd.data.shards import INDEX_FIELDS, new_file
from raykd.data.tasks import dataset_of_tasks
from raykd.data.text import LabelEncoder
from raykd.errors import UserError

PACKS_FILE = "packs.parquet"
PACKED_SPLIT = "train"
PACK_VERSION = 1
"""Raised when the same corpus and config would give other packs, so that old ones are not taken for them."""
_PACKS_PER_SHARD = 64
"""Some 30 MB."""

Progress = Callable[[int, int], None]
"""Called with the packs and copied rows done, and with all of them."""


def packed_corpus(corpus: Corpus, config: DataConfig, speech_format: SpeechFormat, progress: Progress | None = None) -> Corpus:
    """The corpus as the run trains on it: itself, unless `data.pack` is given.

    Raises:
        UserError: the cache cannot be written.
    """
    if config.pack is None or PACKED_SPLIT not in corpus.splits:
        return corpus
    labels = min(config.max_label_tokens, speech_format.max_label_tokens)
    # Whisper reads at most half of its positions as a prompt (openai/whisper, decoding.py).
    room = Room(speech_format.window_frames, labels, speech_format.max_label_tokens // 2)
    key = _key(corpus, config.pack, room)
    path = corpus_path(config.cache_dir, key)
    packed = open_corpus(path)
    if packed is None:
        make_corpus_dir(path, "data.cache_dir")
        encoder = LabelEncoder(speech_format.tokenizer, speech_format.tokenizer_revision)
        packed = _make(path, key, corpus, _Packer(path, corpus.path, room, encoder, config.pack), progress)
    return packed


def _key(corpus: Corpus, config: PackConfig, room: Room) -> str:
    content = [PACK_VERSION, corpus.key, config.model_dump(mode="json"), asdict(room)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def _make(path: str, key: str, corpus: Corpus, packer: "_Packer", progress: Progress | None) -> Corpus:
    shards = list(packer.shards(corpus))
    total, outcomes = sum(len(shard.packs) for shard in shards), [_OUTCOME_SCHEMA.empty_table()]
    with ray_data_settings():
        dataset = dataset_of_tasks([partial(_written, packer, shard) for shard in shards], num_cpus=0.5)
    for table in tables_of(dataset):
        failures = table.column("failure").drop_null()
        if len(failures):
            raise UserError(failures[0].as_py())
        outcomes.append(table.cast(_OUTCOME_SCHEMA))
        if progress is not None:
            progress(sum(map(len, outcomes)), total)
    return _commit(path, key, corpus, pa.concat_tables(outcomes))


def _commit(path: str, key: str, corpus: Corpus, outcomes: pa.Table) -> Corpus:
    ordered = outcomes.sort_by([("id", "ascending")])
    index = ordered.select([*INDEX_COLUMNS, "n_utterances"])
    write_parquet(index, storage.join(path, INDEX_FILE))
    write_parquet(corpus.rejects(), storage.join(path, REJECTS_FILE))
    packs = ordered.filter(pc.equal(ordered.column("split"), PACKED_SPLIT))
    write_parquet(packs.select(["id", "utterances"]), storage.join(path, PACKS_FILE))
    summary = {
        **corpus.summary,
        "key": key,
        "packed": {
            "corpus": corpus.key,
            "packs": packs.num_rows,
            "mean_s": round(pc.mean(packs.column("duration_s")).as_py(), 3),
        },
        "rows": index.num_rows,
        "files": file_sizes(path, index),
    }
    storage.write_text(storage.join(path, SUMMARY_FILE), json.dumps(summary, indent=2, ensure_ascii=False))
    return Corpus(path, summary)


_OUTCOME_SCHEMA = pa.schema(
    [*INDEX_FIELDS, ("n_utterances", pa.int32()), ("utterances", pa.list_(pa.string())), ("failure", pa.string())]
)
"""The index row of a pack or of a copied utterance. A `failure` ends the packing."""


@dataclass(frozen=True)
class _Shard:
    """Packs of one shard, and the rows of the index that they name."""

    split: str
    index: Index
    packs: list[Pack]


@dataclass(frozen=True)
class _Packer:
    """Writes shards of packs. Picklable."""

    path: str
    source: str
    """Folder of the corpus that is packed."""
    room: Room
    encoder: LabelEncoder
    config: PackConfig

    def shards(self, corpus: Corpus) -> Iterator[_Shard]:
        """All that is to be written; a shard holds of the index what it needs."""
        for split in corpus.splits:
            index = corpus.index(split)
            if split == PACKED_SPLIT:
                prefix = {len(self.encoder.prefix(language)) for language in set(index.languages)}
                packs = plan_packs(index, self.room, prefix.pop())
            else:
                packs = [Pack([position]) for position in range(len(index))]
            for start in range(0, len(packs), _PACKS_PER_SHARD):
                yield _shard(split, index, packs[start : start + _PACKS_PER_SHARD])

    def write(self, shard: _Shard) -> list[dict[str, Any]]:
        """Write a shard; its rows of `_OUTCOME_SCHEMA`.

        Raises:
            UserError: it cannot be written.
        """
        ids = [[shard.index.ids[position] for position in pack.positions] for pack in shard.packs]
        name = f"shard-{hashlib.blake2b(repr([shard.split, ids]).encode(), digest_size=12).hexdigest()}.arrow"
        path, outcomes = storage.join(self.path, name), []
        try:
            with new_file(path) as sink, pa.ipc.new_file(sink, SHARD_SCHEMA) as writer:
                for row, (pack, names) in enumerate(zip(shard.packs, ids, strict=True)):
                    record = self._record(shard, pack)
                    writer.write_batch(pa.RecordBatch.from_pylist([record], SHARD_SCHEMA))
                    first = pack.positions[0]
                    outcomes.append(
                        {name: record[name] for name in ("id", "language", "text", "duration_s", "n_frames")}
                        | {
                            "split": shard.split,
                            "recording": shard.index.recordings[first],
                            "start_s": shard.index.start_s[first],
                            "n_tokens": len(record["tokens"]) - 1 - record["n_prompt"],
                            "n_utterances": len(names),
                            "shard": name,
                            "row": row,
                            "utterances": names,
                        }
                    )
        except OSError as error:
            raise UserError(
                f"data.cache_dir: {path} cannot be written ({error.strerror or error}); make room or choose another folder"
            ) from None
        return outcomes

    def _record(self, shard: _Shard, pack: Pack) -> dict[str, Any]:
        parts = self._read(shard.index, pack.positions)
        if shard.split == PACKED_SPLIT:
            prompted = reads_before(pack_id([part.id for part in parts]), self.config)
            before = self._read(shard.index, pack.before) if prompted else []
            whole = joined(parts, before, self.room, self.encoder, self.config)
        else:
            (whole,) = parts
        return {
            **{name: getattr(whole, name) for name in ("id", "language", "text", "duration_s", "tokens", "n_prompt")},
            "n_frames": whole.mel.shape[1],
            "mel": whole.mel.tobytes(),
        }

    def _read(self, index: Index, positions: Sequence[int]) -> list[Utterance]:
        return read_utterances(self.source, index, np.asarray(positions, np.int64))


def _shard(split: str, index: Index, packs: Sequence[Pack]) -> _Shard:
    """The packs with an index of their own, so that a task is not sent that of the whole corpus."""
    named = sorted({position for pack in packs for position in (*pack.positions, *pack.before)})
    place = {position: number for number, position in enumerate(named)}
    own = [Pack([place[at] for at in pack.positions], [place[at] for at in pack.before]) for pack in packs]
    return _Shard(split, Index(index.table.take(named)), own)


def _written(packer: _Packer, shard: _Shard) -> Iterator[pa.Table]:
    """The outcomes of a shard, for Ray Data, which would bury an exception in its own: a failure is a row of its own."""
    try:
        yield pa.Table.from_pylist(packer.write(shard), _OUTCOME_SCHEMA)
    except UserError as error:
        yield pa.Table.from_pylist([{"failure": str(error)}], _OUTCOME_SCHEMA)
