"""Utterance rows and small prepared corpora for tests, made without Ray."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from raykd.config.data import DataConfig
from raykd.data.corpus import Corpus
from raykd.data.format import SpeechFormat
from raykd.data.prepare import commit
from raykd.data.shards import ShardMaker
from raykd.data.text import LabelEncoder
from raykd.data.utterances import SCHEMA


def clip(seconds: float = 1.0, seed: int = 0, rate: int = 16_000) -> bytes:
    """A FLAC of noise and a tone."""
    draws = np.random.default_rng(seed)
    samples = int(seconds * rate)
    tone = 0.3 * np.sin(2 * np.pi * (200 + 10 * seed) * np.arange(samples) / rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, tone + 0.01 * draws.standard_normal(samples), rate, format="FLAC")
    return buffer.getvalue()


def row(number: int, **values: Any) -> dict[str, Any]:
    """A usable utterance row of `utterances.SCHEMA`; `values` replace its own."""
    usual = {
        "id": f"utterance-{number:04d}",
        "audio": clip(0.5 + 0.1 * (number % 7), seed=number),
        "text": "slovo " * (1 + number % 4),
        "language": "cs",
        "split": "train",
    }
    return dict.fromkeys(SCHEMA.names) | usual | values


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def speech_format(whisper_dir: Path) -> SpeechFormat:
    """The input of the `tiny_whisper_dir` fixture: 5 s window."""
    return SpeechFormat(n_mels=80, window_frames=500, max_label_tokens=64, tokenizer=str(whisper_dir))


def make_corpus(folder: Path, whisper_dir: Path, rows: list[dict[str, Any]], **config: Any) -> Corpus:
    """A corpus of these rows, in shards of 8."""
    data = DataConfig(source="unused.jsonl", **config)
    of_model = speech_format(whisper_dir)
    encoder = LabelEncoder(of_model.tokenizer)
    maker = ShardMaker(str(folder), data, of_model, encoder)
    whole = table(rows)
    outcomes = pa.concat_tables(maker.write_shard(whole.slice(start, 8)) for start in range(0, len(rows), 8))
    return commit(str(folder), "key", data, of_model, encoder, outcomes)
