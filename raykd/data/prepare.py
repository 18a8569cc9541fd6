"""From sources to a prepared corpus, once for each content: Ray Data on all cores, in bounded memory."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from raykd import storage
from raykd.config.data import DataConfig
from raykd.data.audio import DECODERS
from raykd.data.context import ray_data_settings
from raykd.data.corpus import INDEX_FILE, REJECTS_FILE, SUMMARY_FILE, Corpus, file_sizes, open_corpus, write_parquet
from raykd.data.format import SpeechFormat
from raykd.data.leaks import same_recordings, same_sentences, same_sounds
from raykd.data.rejects import DUPLICATE_ID, REJECT_COLUMNS, SAME_RECORDING, check_rejects, count_reasons
from raykd.data.shards import INDEX_FIELDS, OUTCOME_SCHEMA, ShardMaker
from raykd.data.sources import all_parts
from raykd.data.sources.dataset import dataset_of
from raykd.data.sources.part import Part
from raykd.data.sources.recognise import with_speech_kinds
from raykd.data.splits import assign_splits
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.shown import tree_without_secrets

PIPELINE_VERSION = 4
"""Raised when the same config and data would give another corpus, so that old ones are not taken for it."""
_KEY_FIELDS = {
    "source",
    "language",
    "test_splits",
    "dev_share",
    "max_dev_utterances",
    "min_duration_s",
    "max_duration_s",
    "min_characters",
    "markers",
    "max_label_tokens",
}
INDEX_COLUMNS = [name for name, _ in INDEX_FIELDS]
_PACKAGES = ("raykd", "numpy", "pyarrow", "ray", "soundfile", "soxr", "transformers")

Progress = Callable[[int, int], None]
"""Called with the rows done and the rows rejected so far."""


def prepare_corpus(
    config: DataConfig, speech_format: SpeechFormat, progress: Progress | None = None, *, needs_text: bool = True
) -> Corpus:
    """The prepared corpus of a data section for a model's input; made on the Ray cluster at first use, kept in `cache_dir`.

    A corpus is complete or not there: `corpus.json` is written last, and every other file is named by its content or written
    whole. So runs that prepare the same corpus at once, and runs that were interrupted, do no harm.

    Without `needs_text` utterances that have no transcript are in it too; their labels are the prefix and the end of text.

    Raises:
        UserError: a source cannot be read, more rows than `max_reject_share` cannot be used, or the cache cannot be written.
    """
    encoder = LabelEncoder(speech_format.tokenizer, speech_format.tokenizer_revision)
    config = with_speech_kinds(config)
    parts = all_parts(config, needs_text)
    key = corpus_key(config, parts, speech_format, encoder)
    path = corpus_path(config.cache_dir, key)
    corpus = open_corpus(path)
    if corpus is None:
        make_corpus_dir(path, "data.cache_dir")
        outcomes = _outcomes(parts, ShardMaker(path, config, speech_format, encoder, needs_text), progress)
        corpus = commit(path, key, config, speech_format, encoder, outcomes)
    rows = corpus.summary["utterances"] + corpus.summary["rejected"]
    check_rejects(corpus.summary["rejects"], rows, config.max_reject_share, storage.join(path, REJECTS_FILE))
    return corpus


def corpus_path(cache_dir: str, key: str) -> str:
    """The folder of the corpus with that key."""
    cache = cache_dir if storage.is_remote(cache_dir) else storage.filesystem_of(cache_dir)[1]
    return storage.join(cache, "corpora", key)


def make_corpus_dir(path: str, config_key: str) -> None:
    """Make the folder of a corpus.

    Raises:
        UserError: it cannot be made; `config_key` says where the cache was chosen.
    """
    try:
        storage.make_dir(path)
    except OSError as error:
        raise UserError(
            f"{config_key}: {path} cannot be made ({error.strerror or error}); choose a folder that can be written"
        ) from None


def corpus_key(config: DataConfig, parts: Sequence[Part], speech_format: SpeechFormat, encoder: LabelEncoder) -> str:
    """Hash of all that decides what is in the corpus: the sources' files, filters, splits, model input, vocabulary.

    The parts of a source name its files with their sizes and times of change.
    """
    content = {
        "version": PIPELINE_VERSION,
        "config": config.model_dump(mode="json", include=_KEY_FIELDS),
        "format": [speech_format.n_mels, speech_format.window_frames, speech_format.max_label_tokens],
        "tokenizer": encoder.fingerprint,
        "decoders": DECODERS,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()[:20]


def _outcomes(parts: Sequence[Part], maker: ShardMaker, progress: Progress | None) -> pa.Table:
    """What became of every row, in the order of the sources."""
    tables: list[pa.Table] = []
    done = rejected = 0
    with ray_data_settings():
        dataset = dataset_of(parts).map_batches(
            maker.__call__, batch_size=maker.config.shard_utterances, batch_format="pyarrow", num_cpus=1
        )
    for table in tables_of(dataset):
        failures = table.column("failure").drop_null()
        if len(failures):
            raise UserError(failures[0].as_py())
        tables.append(table.cast(OUTCOME_SCHEMA))
        done += table.num_rows
        rejected += table.num_rows - table.column("reason").null_count
        if progress is not None:
            progress(done, rejected)
    return pa.concat_tables(tables) if tables else OUTCOME_SCHEMA.empty_table()


def tables_of(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """The blocks of a dataset; a `UserError` of a task comes out as it is."""
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause).splitlines()[0]) from None
        raise


def commit(
    path: str, key: str, config: DataConfig, speech_format: SpeechFormat, encoder: LabelEncoder, outcomes: pa.Table
) -> Corpus:
    """Write index and rejects and, when enough rows can be used, the summary that makes the folder a corpus."""
    index, rejected = settle(outcomes, config)
    rejects_path = storage.join(path, REJECTS_FILE)
    reasons = count_reasons(rejected)
    write_parquet(rejected, rejects_path)
    check_rejects(reasons, outcomes.num_rows, config.max_reject_share, rejects_path)
    write_parquet(index, storage.join(path, INDEX_FILE))
    summary = {
        "key": key,
        "utterances": index.num_rows,
        "rejected": rejected.num_rows,
        "hours": _hours(index),
        "rejects": reasons,
        "splits": _count_splits(index),
        "guessed": sorted(
            set(index.column("split").to_pylist()) - set(outcomes.column("split").to_pylist()) - {"train", "all"}
        ),
        "warnings": _warnings(index),
        "pad_id": encoder.pad_id,
        "n_mels": speech_format.n_mels,
        "window_frames": speech_format.window_frames,
        "sources": tree_without_secrets([source.model_dump(mode="json") for source in config.source]),
        "files": file_sizes(path, index),
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    storage.write_text(storage.join(path, SUMMARY_FILE), json.dumps(summary, indent=2, ensure_ascii=False))
    return Corpus(path, summary)


def settle(outcomes: pa.Table, config: DataConfig) -> tuple[pa.Table, pa.Table]:
    """The index and the rejects, each sorted by id, of rows in the order of the sources.

    Of usable rows with the same id the first one is kept; a recording that is in dev or test as well is not trained on.
    """
    ordered = outcomes.append_column("order", pa.array(np.arange(outcomes.num_rows)))
    ordered = ordered.sort_by([("id", "ascending"), ("order", "ascending")])
    is_rejected = ordered.column("reason").is_valid()
    usable = ordered.filter(pc.invert(is_rejected))
    again = np.zeros(usable.num_rows, bool)
    again[1:] = pc.equal(usable.column("id")[1:], usable.column("id")[:-1]).to_numpy()
    duplicates, usable = usable.filter(pa.array(again)), usable.filter(pa.array(~again))
    ids, languages, splits = (usable.column(name).to_pylist() for name in ("id", "language", "split"))
    assigned = assign_splits(ids, languages, splits, config)
    usable = usable.set_column(usable.column_names.index("split"), "split", pa.array(assigned, pa.string()))
    leaked = same_recordings(usable.column("sound").to_pylist(), list(assigned))
    rejected = pa.concat_tables(
        [
            ordered.filter(is_rejected),
            _with_reason(duplicates, DUPLICATE_ID),
            _with_reason(usable.filter(pa.array(leaked)), SAME_RECORDING),
        ]
    )
    rejected = rejected.sort_by([("id", "ascending"), ("order", "ascending")]).select(REJECT_COLUMNS)
    return usable.filter(pa.array(~leaked)).select(INDEX_COLUMNS), rejected


def _warnings(index: pa.Table) -> list[str]:
    ids, sounds, texts, splits = (index.column(name).to_pylist() for name in ("id", "sound", "text", "split"))
    return [*map(str, same_sentences(texts, splits)), *map(str, same_sounds(ids, sounds, texts, splits))]


def _with_reason(rows: pa.Table, reason: str) -> pa.Table:
    reasons = pa.array([reason] * rows.num_rows, pa.string())
    return rows.set_column(rows.column_names.index("reason"), "reason", reasons)


def _count_splits(index: pa.Table) -> dict[str, Any]:
    """Utterances and hours of each split and of each language in it."""
    splits = {}
    for split in sorted(pc.unique(index.column("split")).to_pylist()):
        of_split = index.filter(pc.equal(index.column("split"), split))
        languages = {}
        for language in sorted(pc.unique(of_split.column("language")).to_pylist()):
            of_language = of_split.filter(pc.equal(of_split.column("language"), language))
            languages[language] = {"utterances": of_language.num_rows, "hours": _hours(of_language)}
        splits[split] = {"utterances": of_split.num_rows, "hours": _hours(of_split), "languages": languages}
    return splits


def _hours(index: pa.Table) -> float:
    return round((pc.sum(index.column("duration_s")).as_py() or 0.0) / 3600, 6)
