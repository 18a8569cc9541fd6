"""What a comparison runs, and what became of it."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from raykd import storage
from raykd.comparing.scores import KINDS, Scored
from raykd.config import Config
from raykd.errors import UserError
from raykd.evaluation.expert_use import STACKS
from raykd.tracking.run_folder import RunFolder


@dataclass(frozen=True)
class Job:
    """One run, or a model as it is (`config` is then that of the runs beside it)."""

    method: str
    setting: str
    seed: int | None
    """None of a model as it is."""
    config: Config
    model: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    scored: Mapping[str, Scored]
    """By test set."""
    facts: Mapping[str, float | None]
    """`trained`, `stored` and `active` parameters, `train_s`, `teacher_passes` a trained utterance, `memory_gb`, `speedup`."""
    run: str | None = None
    """Folder of the run."""


def outcome_of(run: RunFolder, job: Job) -> Outcome:
    """Of a run that is finished, from its folder alone.

    Raises:
        UserError: it is not finished.
    """
    metrics = run.read_json("metrics.json")
    if metrics is None:
        raise UserError(f"{run.path}: has no metrics.json; let the run finish first (--resume)")
    student, train, speeds = metrics["student"], metrics["train"], list(metrics["speed"].values())
    scored = {
        split: scored_rows(storage.read_bytes(run.evaluation_path("student", split)), scores)
        for split, scores in student["splits"].items()
    }
    facts = {
        "trained": train.get("parameters"),
        "stored": student["params"],
        "active": student.get("params_active") or student["params"],
        "train_s": train["wall_s"],
        "teacher_passes": None if train.get("teacher_passes") is None else train["teacher_passes"] / train["utterances_seen"],
        "memory_gb": train.get("memory_gb"),
        "speedup": speeds[0]["speedup"] if speeds else None,
    }
    return Outcome(job, scored, facts, run.path)


def scored_rows(rows: bytes, summary: Mapping[str, Any]) -> Scored:
    """From the rows of an evaluation, as Parquet, and its summary."""
    table = pq.read_table(io.BytesIO(rows))
    errors = [np.asarray(table.column(name), dtype=np.int64) for name in KINDS[:3]]
    use = {
        language: {key: scores[key] for stack in STACKS if (key := f"expert_use_{stack}") in scores}
        for language, scores in summary["per_language"].items()
    }
    return Scored(
        ids=tuple(table.column("id").to_pylist()),
        languages=tuple(table.column("language").to_pylist()),
        words_I=np.asarray(table.column("words"), dtype=np.int64),
        errors_I=np.sum(errors, axis=0),
        kinds={kind: int(summary.get(kind, 0)) for kind in KINDS},
        expert_use={language: shares for language, shares in use.items() if shares},
    )
