"""What MLflow is told: flat parameters and slashed metrics, made from the config, history records and final metrics."""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from raykd.evaluation.measures import ON_REQUEST
from raykd.shown import tree_without_secrets
from raykd.tracking.metrics import Metrics, ModelMetrics

MAX_PARAM = 6000
"""Longest parameter value that MLflow stores, in characters."""


_TRAIN = (
    "loss",
    "lr",
    "grad_norm",
    "tokens",
    "epoch",
    "utterances",
    "utterances_per_s",
    "segments",
    "segments_per_s",
    "tokens_per_s",
    "data_wait",
    "floor_share",
    "memory_gb",
)


class Point(NamedTuple):
    """One value of one metric. `timestamp` is in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


def flat_params(tree: Mapping[str, Any]) -> dict[str, str]:
    """A resolved config with dotted keys (`train.lr`, `data.source.0.kind`); lists of plain values stay one value."""
    return {
        key: value[: MAX_PARAM - 3] + "..." if len(value) > MAX_PARAM else value
        for key, value in _flatten(tree_without_secrets(tree), "")
    }


def points_of_record(record: Mapping[str, Any]) -> list[Point]:
    """The metrics of a `train` or `eval` history record; none for other kinds."""
    values: dict[str, Any] = {}
    if record.get("kind") == "train":
        for key in _TRAIN:
            values[f"train/{key}"] = record.get(key)
        values |= {f"train/{term}": value for term, value in record.get("terms", {}).items()}
        values |= {f"train/weight/{term}": value for term, value in record.get("weights", {}).items()}
    elif record.get("kind") == "eval":
        prefix = "eval" if record.get("split", "dev") == "dev" else f"eval/{record['split']}"
        values |= {f"{prefix}/{key}": value for key, value in record.items() if key not in {"kind", "step", "split"}}
        for language, scores in record.get("per_language", {}).items():
            values |= _rates(f"{prefix}/{language}", scores)
    return points(values, int(record.get("step", 0)))


def points_of_metrics(metrics: Metrics) -> list[Point]:
    """The final numbers: `test/student/wer`, `test/student/cs/wer`, `test_ood/teacher/cer`, `speed/batch_1/speedup`, ...

    Real-time factors are those of `speed` alone where there is a teacher: two that were taken while scoring do not compare.
    """
    values: dict[str, Any] = {}
    for name, model in (("teacher", metrics.teacher), ("student", metrics.student)):
        if model is not None:
            values |= _model_values(name, model)
    if metrics.teacher is None:
        values |= {f"{split}/student/rtf": scores.rtf for split, scores in metrics.student.splits.items()}
    for batch, speed in metrics.speed.items():
        values |= {f"speed/{batch}/{key}": value for key, value in speed.model_dump().items()}
    values |= {f"total/{key}": value for key, value in metrics.train.model_dump().items()}
    values |= {f"data/{key}": getattr(metrics.data, key) for key in ("utterances", "rejected", "hours")}
    return points(values, metrics.train.steps)


def _model_values(name: str, model: ModelMetrics) -> dict[str, Any]:
    values: dict[str, Any] = {f"{name}/params": model.params}
    for split, scores in model.splits.items():
        values |= _rates(f"{split}/{name}", scores.model_dump())
        for language, score in scores.per_language.items():
            values |= _rates(f"{split}/{name}/{language}", score.model_dump())
    return values


def _rates(prefix: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{key}": scores.get(key) for key in ("wer", "cer", *ON_REQUEST)}


def points(values: Mapping[str, Any], step: int) -> list[Point]:
    """The finite numbers among the values, as metrics at a step."""
    now = int(time.time() * 1000)
    numbers = ((key, value) for key, value in values.items() if isinstance(value, int | float))
    return [Point(_allowed(key), float(value), now, step) for key, value in numbers if math.isfinite(value)]


def _allowed(key: str) -> str:
    """A name that MLflow takes: one that it refused would hold up all the others."""
    return re.sub(r"[^\w.\- :/]", "_", key)[:250]


def _flatten(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flatten(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flatten(item, f"{key}.{index}")
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
