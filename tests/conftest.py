"""Fixtures shared by all tests: a local Ray and a tiny random Whisper with the real vocabulary."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from raykd.data.corpus import Corpus
    from tests.jobs import MakeJob

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # as in a Ray of raykd's own


_SLOW_FOLDERS = {"ray", "training"}
_SLOW_FIXTURES = {"ray_local", "make_job"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`pytest -m quick`: all that starts neither Ray nor training workers, and is not marked as slow."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.path.parent.name not in _SLOW_FOLDERS and not fixtures & _SLOW_FIXTURES and not item.get_closest_marker("slow"):
            item.add_marker("quick")


@pytest.fixture(scope="session")
def tiny_whisper_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Whisper (1 + 2 layers, width 32, 5 s window, 51 865 tokens) and its processor."""
    from raykd.config.models import ScratchConfig
    from raykd.models.demo import demo_processor, new_whisper
    from raykd.models.whisper import save_whisper

    dims = ScratchConfig(width=32, heads=2, ffn=64, encoder_layers=1, decoder_layers=2, window_s=5.0, max_label_tokens=64)
    folder = tmp_path_factory.mktemp("tiny-whisper")
    save_whisper(new_whisper(dims, seed=0), demo_processor(dims), str(folder))
    return folder


@pytest.fixture(scope="session")
def lively_dir(tiny_whisper_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Whisper with weights so large that it says something else for each utterance."""
    import torch

    from raykd.models.whisper import load_processor, load_whisper, save_whisper

    model = load_whisper(str(tiny_whisper_dir))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(15)
    folder = tmp_path_factory.mktemp("lively")
    save_whisper(model, load_processor(str(tiny_whisper_dir)), str(folder))
    return folder


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local Ray cluster with two CPUs, shared by the tests of a session."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def numbers(tiny_whisper_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> "Corpus":
    """A small corpus for the tiny Whisper, made without Ray."""
    from tests.jobs import numbers_corpus

    return numbers_corpus(tmp_path_factory.mktemp("numbers"), tiny_whisper_dir)


@pytest.fixture
def make_job(numbers: "Corpus", tiny_whisper_dir: Path, tmp_path: Path) -> "MakeJob":
    """Makes training jobs on it: see `tests.jobs.job_maker`."""
    from tests.jobs import job_maker

    return job_maker("unused.jsonl", numbers, tiny_whisper_dir, tmp_path)
