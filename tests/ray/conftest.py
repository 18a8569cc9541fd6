"""A small manifest, and the corpus that Ray prepares of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from raykd.config.data import DataConfig
from raykd.data.corpus import Corpus
from raykd.data.format import SpeechFormat
from raykd.data.prepare import prepare_corpus
from raykd.models.whisper import speech_format
from tests.jobs import WORDS


def write_manifest(folder: Path, train: int, dev: int, test: int) -> Path:
    """Recordings of tones whose pitches spell their words, from 0.6 to 2.4 s, and the manifest of them."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", train), ("dev", dev), ("test", test)):
        for number in range(count):
            chosen = rng.integers(0, len(WORDS), size=int(rng.integers(2, 9)))
            times = np.arange(int(0.3 * 16_000)) / 16_000
            samples = np.concatenate([0.3 * np.sin(2 * np.pi * (200 + 150 * word) * times) for word in chosen])
            path = folder / f"{split}-{number:03d}.flac"
            soundfile.write(path, samples + 0.01 * rng.standard_normal(len(samples)), 16_000)
            rows.append({"audio": path.name, "text": " ".join(WORDS[w] for w in chosen), "language": "cs", "split": split})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 22 training, 4 dev and 4 test utterances."""
    return write_manifest(tmp_path_factory.mktemp("speech"), 22, 4, 4)


@pytest.fixture(scope="session")
def tiny_format(tiny_whisper_dir: Path) -> SpeechFormat:
    return speech_format(str(tiny_whisper_dir))


@pytest.fixture(scope="session")
def tiny_corpus(manifest: Path, tiny_format: SpeechFormat, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Corpus:
    """The manifest, prepared for the tiny Whisper."""
    config = DataConfig.model_validate({"source": str(manifest), "cache_dir": str(tmp_path_factory.mktemp("cache"))})
    return prepare_corpus(config, tiny_format)
