"""A Whisper folder as an MLflow model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raykd.tracking.metrics import package_versions

REQUIREMENTS = ("transformers", "torch", "mlflow")


def log_whisper(folder: str, uri: str, run_id: str, name: str = "student") -> None:
    """Log a local folder in Hugging Face format so that `mlflow.transformers.load_model("runs:/<run_id>/<name>")` loads it.

    The components are given one by one: from a bare folder MLflow would leave out the feature extractor. It is done under an
    active run: MLflow puts models without one into its default experiment, where `runs:/` does not find them. Nothing is asked
    of the Hugging Face Hub or of a package index.
    """
    import mlflow
    from huggingface_hub import ModelCard
    from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration

    card = Path(folder) / "README.md"
    with _without_progress_bars(), _as_current_store(uri):
        parts = {
            "model": WhisperForConditionalGeneration.from_pretrained(folder),
            "tokenizer": AutoTokenizer.from_pretrained(folder),
            "feature_extractor": AutoFeatureExtractor.from_pretrained(folder),
        }
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            mlflow.transformers.log_model(
                transformers_model=parts,
                name=name,
                task="automatic-speech-recognition",
                model_card=ModelCard.load(card) if card.exists() else None,
                pip_requirements=[f"{package}=={_public_version(package)}" for package in REQUIREMENTS],
            )


def register(model_uri: str, name: str, uri: str) -> str:
    """Make a logged model a version of the registered model of that name; the version."""
    import mlflow

    with _as_current_store(uri):
        return str(mlflow.register_model(model_uri, name).version)


def _public_version(package: str) -> str:
    """A version as package indexes know it: 2.13.0 for 2.13.0+cpu."""
    return package_versions()[package].partition("+")[0]


@contextmanager
def _as_current_store(uri: str) -> Iterator[None]:
    """`log_model` knows only the process's store. Setting that also sets MLFLOW_TRACKING_URI, which must not outlive us."""
    import mlflow

    before: Any = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """transformers draws bars for every file it reads and writes; they would cut through ours."""
    from transformers.utils import logging as transformers_logging

    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()
