"""`metrics.json`: the numbers of a finished run. WER and CER are fractions of 1, over the whole corpus, greedy decoding."""

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from raykd.evaluation.measures import ON_REQUEST

PACKAGES = (
    "raykd",
    "torch",
    "ray",
    "deepspeed",
    "transformers",
    "datasets",
    "mlflow",
    "jiwer",
    "pyarrow",
    "numpy",
    "soundfile",
    "soxr",
)

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Numbers(BaseModel):
    """Further keys are kept: evaluation and data may say more than is promised here."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Score(_Numbers):
    """One model on one language. What was not asked for is None here, and absent from the file."""

    wer: Rate
    cer: Rate
    invalid_word_share: Rate | None = None
    """Of the hypothesis words: those that are not in the vocabulary."""
    loss: Rate | None = None
    """Mean cross-entropy of a label token with gold prefixes, in nats."""
    teacher_forced_wer: Rate | None = None
    """Of the arg-max with gold prefixes, special tokens included, not normalised: for comparison with papers that report it."""
    teacher_forced_cer: Rate | None = None
    expert_use_encoder: Rate | None = None
    """Of tokens and layers of the encoder: those that go through a language's expert, with gold prefixes."""
    expert_use_decoder: Rate | None = None

    @model_serializer(mode="wrap")
    def _without_what_was_not_asked_for(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None or key not in ON_REQUEST}


class SplitScore(Score):
    """One model on one split."""

    per_language: dict[str, Score]
    macro: Score | None = None
    """Mean over languages, each weighing the same."""
    rtf: Rate | None = None
    """Seconds of computing for a second of audio while the split was scored, with whatever else the machine did: only `speed`
    compares models."""
    normalizer: Any = None
    """Which text normaliser the rates are under."""


class ModelMetrics(SplitScore):
    """One model: its size, its rates on the headline split, and those on every test split."""

    params: Count
    params_active: Count | None = None
    """That a token passes, where it is not all of them: one feed-forward block of those that language experts stand beside."""
    split: str
    """The headline split."""
    splits: dict[str, SplitScore]

    @classmethod
    def of(cls, params: int, summaries: Mapping[str, Mapping[str, Any]], params_active: int | None = None) -> "ModelMetrics":
        """From evaluation summaries by split; the first split is the headline."""
        headline = next(iter(summaries))
        sizes = {"params": params, "params_active": params_active}
        return cls.model_validate({**summaries[headline], **sizes, "split": headline, "splits": dict(summaries)})


class TrainMetrics(_Numbers):
    """What training did."""

    steps: Count
    utterances_seen: Count
    utterances_per_s: Rate
    wall_s: Rate
    tokens: Count
    parameters: Count | None = None
    """That were trained."""
    teacher_passes: Count | None = None
    """Utterances that teachers were run on: an utterance of two teachers counts twice."""
    memory_gb: Rate | None = None
    """Peak of the first worker: of tensors on a GPU, on a CPU of the whole process."""


class SpeedMetrics(_Numbers):
    """Teacher and student decoding the same utterances at one batch size; real-time factors."""

    teacher_rtf: Rate | None
    student_rtf: Rate
    speedup: Rate | None


class DataMetrics(_Numbers):
    """What was trained and tested on."""

    utterances: Count
    rejected: Count
    hours: Rate


class Metrics(_Numbers):
    """The whole file. `teacher` is null for a run without one; `speed` is keyed `batch_1`, `batch_8`, ..."""

    teacher: ModelMetrics | None
    student: ModelMetrics
    train: TrainMetrics
    speed: dict[str, SpeedMetrics]
    data: DataMetrics
    versions: dict[str, str]

    def to_json(self) -> str:
        """The text of `metrics.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def build_metrics(
    *,
    teacher: ModelMetrics | None,
    student: ModelMetrics,
    train: Mapping[str, Any],
    speed: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, Any],
    versions: Mapping[str, str] | None = None,
) -> Metrics:
    """Put the parts together and check them. `versions` defaults to the packages of this process.

    Raises:
        ValueError: a part lacks a number, or has an impossible one; the message names it.
    """
    parts = {"teacher": teacher and teacher.model_dump(), "student": student.model_dump(), "train": dict(train)}
    parts |= {"speed": dict(speed), "data": dict(data), "versions": dict(versions or package_versions())}
    try:
        return Metrics.model_validate(parts)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ValueError(f"metrics.json: {'; '.join(wrong)}") from None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run stands on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
