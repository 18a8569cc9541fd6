"""From text to a prepared corpus of segments, once for each content.

One Ray Data task reads, cleans and cuts the text in its order (`text_reader`); tokenising and writing of shards run beside it
on all cores. The corpus has the files of any other (`data.corpus`), and `words.txt.gz`: its distinct words.
"""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raykd import storage
from raykd.config.text import TextConfig
from raykd.data.context import ray_data_settings
from raykd.data.corpus import (
    INDEX_FILE,
    REJECTS_FILE,
    SUMMARY_FILE,
    TEXT_SCHEMA,
    Corpus,
    file_sizes,
    open_corpus,
    write_parquet,
)
from raykd.data.languages import configured_language
from raykd.data.prepare import Progress, corpus_path, make_corpus_dir, tables_of
from raykd.data.rejects import check_rejects
from raykd.data.sources.recognise import with_text_kinds
from raykd.data.tasks import dataset_of_tasks
from raykd.data.text import LabelEncoder
from raykd.data.text_reader import LINES_FILE, SegmentReader
from raykd.data.text_sources import text_parts
from raykd.data.text_sources.part import TextPart
from raykd.errors import UserError

TEXT_PIPELINE_VERSION = 1
"""Raised when the same config and text would give another corpus, so that old ones are not taken for it."""
ROWS_PER_BATCH = 256
"""Segments in a record batch of a shard: some 30 kB."""
_KEY_FIELDS = set(TextConfig.model_fields) - {"source", "language", "cache_dir", "shard_segments", "max_reject_share"}
_OUTCOME_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("n_tokens", pa.list_(pa.int32())),
        ("failure", pa.string()),
    ]
)
"""A row holds what lies in a shard. A `failure` ends the preparation."""
_PACKAGES = ("raykd", "numpy", "pyarrow", "ray", "transformers")


def prepare_text(config: TextConfig, tokenizer: str, revision: str | None = None, progress: Progress | None = None) -> Corpus:
    """The prepared corpus of a text section; made on the Ray cluster at first use, kept in `cache_dir`.

    A corpus is complete or not there, as in `prepare.prepare_corpus`.

    Args:
        config: the text section.
        tokenizer: local folder or hub id that holds Whisper tokenizer files.
        revision: of the tokenizer.
        progress: called with the segments made and the lines rejected so far (known at the end).

    Raises:
        UserError: a source cannot be read, nothing is left of it, more lines than `max_reject_share` cannot be used, the
            tokenizer lacks the language, or the cache cannot be written.
    """
    encoder = LabelEncoder(tokenizer, revision)
    language = configured_language(config.language, "text.language")
    if language is None or language not in encoder.languages:
        raise UserError(f"text.language: {tokenizer} has no token for {config.language}; choose another language or model")
    config = with_text_kinds(config)
    parts = text_parts(config, language)
    key = text_key(config, language, parts, encoder)
    path = corpus_path(config.cache_dir, key)
    corpus = open_corpus(path)
    if corpus is None:
        make_corpus_dir(path, "text.cache_dir")
        reader = SegmentReader(parts, config, path)
        outcomes = _outcomes(reader, SegmentMaker(path, language, encoder), progress)
        corpus = commit_text(path, key, config, language, encoder, parts, outcomes)
        if progress is not None:
            progress(corpus.summary["segments"], corpus.summary["rejected"])
    summary = corpus.summary
    rejects_path = storage.join(path, REJECTS_FILE)
    check_rejects(summary["rejects"], summary["lines"]["read"], config.max_reject_share, rejects_path, "text", "lines")
    return corpus


def text_key(config: TextConfig, language: str, parts: Sequence[TextPart], encoder: LabelEncoder) -> str:
    """Hash of all that decides what is in the corpus: the text, how it is cut, splits, vocabulary."""
    content = {
        "version": TEXT_PIPELINE_VERSION,
        "config": config.model_dump(mode="json", include=_KEY_FIELDS),
        "language": language,
        "tokenizer": encoder.fingerprint,
        "parts": [repr(part) for part in parts],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class SegmentMaker:
    """Turns rows of segments (`text_reader.SEGMENTS_SCHEMA`) into shards of a corpus."""

    corpus_path: str
    language: str
    encoder: LabelEncoder

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`write_shard` for Ray Data, which would bury an exception in its own: a failure is returned as a row of its own."""
        # Ray runs as many of these as there are cores; each with threads on all cores would be in the others' way.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            outcomes = [self.write_shard(texts) for texts in batch.column("texts").to_pylist()]
        except UserError as error:
            outcomes = [{"failure": str(error)}]
        return pa.Table.from_pylist(outcomes, _OUTCOME_SCHEMA)

    def write_shard(self, texts: list[str]) -> dict[str, Any]:
        """Write the segments to a shard and return a row of `_OUTCOME_SCHEMA`.

        The shard is named by its segments, so a task that runs again, or another run over the same text, writes the same file.

        Raises:
            UserError: the shard cannot be written.
        """
        ids = [hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in texts]
        shard = f"shard-{hashlib.blake2b(''.join(ids).encode(), digest_size=12).hexdigest()}.arrow"
        tokens = self.encoder.encode_all(texts, self.language)
        rows = pa.RecordBatch.from_pydict({"id": ids, "tokens": tokens}, TEXT_SCHEMA)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, TEXT_SCHEMA) as writer:
            for start in range(0, len(rows), ROWS_PER_BATCH):
                writer.write_batch(rows.slice(start, ROWS_PER_BATCH))
        path = storage.join(self.corpus_path, shard)
        try:
            storage.write_bytes(path, sink.getvalue())
        except OSError as error:
            raise UserError(
                f"text.cache_dir: {path} cannot be written ({error.strerror or error}); make room or choose another folder"
            ) from None
        return {"shard": shard, "ids": ids, "n_tokens": [len(sequence) for sequence in tokens]}


def _outcomes(reader: SegmentReader, maker: SegmentMaker, progress: Progress | None) -> pa.Table:
    """The `place` of every segment, in the order of the text."""
    with ray_data_settings(block_a_row=True):
        # The reader takes no core and is one task: otherwise Ray Data would fuse the making of shards into it, and a machine
        # with one core would have none for them.
        segments = dataset_of_tasks([reader.tables], num_cpus=0, concurrency=1)
        dataset = segments.map_batches(maker.__call__, batch_size=1, batch_format="pyarrow", num_cpus=1)
    tables = [place("", [], [])]
    done = 0
    for table in tables_of(dataset):
        for outcome in table.to_pylist() if table.num_columns else []:
            if outcome["failure"]:
                raise UserError(outcome["failure"])
            tables.append(place(outcome["shard"], outcome["ids"], outcome["n_tokens"]))
            done += len(outcome["ids"])
            if progress is not None:
                progress(done, 0)
    return pa.concat_tables(tables)


def place(shard: str, ids: list[str], n_tokens: list[int]) -> pa.Table:
    """Where the segments of a shard lie: (id, n_tokens, shard, row)."""
    columns = {
        "id": pa.array(ids, pa.string()),
        "n_tokens": pa.array(n_tokens, pa.int32()),
        "shard": pa.repeat(shard, len(ids)),
        "row": pa.array(range(len(ids)), pa.int32()),
    }
    return pa.table(columns)


def commit_text(
    path: str,
    key: str,
    config: TextConfig,
    language: str,
    encoder: LabelEncoder,
    parts: Sequence[TextPart],
    outcomes: pa.Table,
) -> Corpus:
    """Write the index and, when enough lines can be used, the summary that makes the folder a corpus.

    `outcomes`: the `place` of every segment, in order.
    """
    lines = json.loads(storage.read_bytes(storage.join(path, LINES_FILE)))
    rejects = dict(sorted(lines.pop("rejects").items(), key=lambda item: (-item[1], item[0])))
    check_rejects(rejects, lines["read"], config.max_reject_share, storage.join(path, REJECTS_FILE), "text", "lines")
    if not outcomes.num_rows:
        names = ", ".join(part.name for part in parts[:3]) + (", ..." if len(parts) > 3 else "")
        raise UserError(
            f"text.source: nothing is left of {names}: of {lines['read']} lines {lines['short']} have fewer than "
            f"text.min_words={config.min_words} words; give more text or a smaller text.min_words"
        )
    index = settle_segments(outcomes, language, config)
    write_parquet(index, storage.join(path, INDEX_FILE))
    splits = {}
    for split in ("train", "dev"):
        n_tokens = index.filter(pc.equal(index.column("split"), split)).column("n_tokens")
        if len(n_tokens):
            counts = {"segments": len(n_tokens), "tokens": pc.sum(n_tokens).as_py()}
            splits[split] = {**counts, "languages": {language: counts}}
    summary = {
        "key": key,
        "segments": index.num_rows,
        "duplicate_segments": outcomes.num_rows - index.num_rows,
        "bytes": lines.pop("bytes"),
        "words": lines.pop("words"),
        "lines": lines,
        "rejected": sum(rejects.values()),
        "rejects": rejects,
        "splits": splits,
        "languages": [language],
        "pad_id": encoder.pad_id,
        "rows_per_batch": ROWS_PER_BATCH,
        "sources": [source.model_dump(mode="json") for source in config.source],
        "files": file_sizes(path, index),
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    storage.write_text(storage.join(path, SUMMARY_FILE), json.dumps(summary, indent=2, ensure_ascii=False))
    return Corpus(path, summary)


def settle_segments(outcomes: pa.Table, language: str, config: TextConfig) -> pa.Table:
    """The index, sorted by id, of segments in the order of the text. Of equal segments the first one is kept.

    An id is a hash already: the segments with the smallest ids are `dev`, the others `train`, at least one each.
    """
    ordered = outcomes.append_column("order", pa.array(np.arange(outcomes.num_rows)))
    ordered = ordered.sort_by([("id", "ascending"), ("order", "ascending")]).drop_columns(["order"])
    ids = ordered.column("id").combine_chunks()
    first = np.ones(len(ids), bool)
    first[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    index = ordered.filter(pa.array(first))
    dev = 0
    if config.validation_share > 0:
        below = pc.less(index.column("id"), f"{int(config.validation_share * 2**64):016x}")
        dev = min(max(1, pc.sum(below).as_py()), config.max_validation_segments, index.num_rows - 1)
    splits = pa.array(["dev"] * dev + ["train"] * (index.num_rows - dev), pa.string())
    columns = {"id": index.column("id"), "language": pa.repeat(language, index.num_rows), "split": splits}
    return pa.table(columns | {name: index.column(name) for name in ("n_tokens", "shard", "row")})
