"""`report.html`: one self-contained page about a run, made from the files of its folder alone.

It can be made at any time: what a run does not have (yet) is left out.
"""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from raykd import storage
from raykd.evaluation.measures import ON_REQUEST
from raykd.tracking.examples import Row, common_invalid_words, common_mistakes, typical_examples, worst_examples
from raykd.tracking.history import History, read_history
from raykd.tracking.metrics import Metrics, Score
from raykd.tracking.progress import duration
from raykd.tracking.report_plots import is_dev, result_plots, training_plots
from raykd.tracking.run_folder import RunFolder
from raykd.tracking.table import format_count, format_measure, format_number, format_rate, format_rtf, measured

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    "rate": format_rate,
    "count": format_count,
    "number": format_number,
    "rtf": format_rtf,
    "duration": duration,
}
TYPICAL_EXAMPLES = 6
COMMON_MISTAKES = 12
COMMON_INVALID_WORDS = 24


@dataclass(frozen=True)
class RunFiles:
    """What a run folder says about its run."""

    config: dict[str, Any]
    history: History
    metrics: Metrics | None
    """None while the run is not finished."""
    evaluations: dict[tuple[str, str], list[Row]]
    """Scored utterances by (`teacher` | `student`, split)."""
    rejects: list[Row]

    @classmethod
    def read(cls, run: RunFolder) -> "RunFiles":
        """Read the folder."""
        metrics = run.read_json("metrics.json")
        evaluations = {}
        for name in storage.list_dir(run.at("evaluation")):
            model, _, split = name.removesuffix(".parquet").partition("-")
            if name.endswith(".parquet"):
                evaluations[model, split] = _read_rows(run.evaluation_path(model, split))
        return cls(
            config=yaml.safe_load(run.read_text("config.yaml")),
            history=read_history(run.history_path),
            metrics=Metrics.model_validate(metrics) if metrics else None,
            evaluations=evaluations,
            rejects=_read_rows(run.rejects_path) if storage.exists(run.rejects_path) else [],
        )


def write_report(run: RunFolder, path: str | None = None) -> None:
    """Write `report.html` of a run folder, there or elsewhere."""
    storage.write_text(path or run.report_path, render_report(run.name, RunFiles.read(run), run.config_path))


def render_report(name: str, files: RunFiles, config_path: str) -> str:
    """The page. `config_path` is named in the command that repeats the run."""
    metrics, history = files.metrics, files.history
    return TEMPLATES.get_template("report.html").render(
        name=name,
        teacher_name=teacher_name(files.config),
        config=files.config,
        config_yaml=yaml.safe_dump(files.config, sort_keys=False, allow_unicode=True),
        objective=objective_text(files.config),
        metrics=metrics,
        last=history.train[-1] if history.train else None,
        best=min((record for record in history.eval if is_dev(record)), key=lambda record: record["wer"], default=None),
        splits=_split_tables(metrics) if metrics else [],
        measures=_measures(metrics) if metrics else None,
        vocabulary=(files.config.get("evaluation") or {}).get("vocabulary"),
        normalizer=normalizer_text(metrics.student.normalizer) if metrics else "",
        scored=_scored(files),
        training_plots=training_plots(history),
        result_plots=result_plots(metrics) if metrics else [],
        examples=_examples(files),
        rejects=_rejects(files.rejects),
        events=history.events,
        data_splits=_data_splits(metrics) if metrics else [],
        command=f"python -m raykd.distill --config {config_path}",
    )


def teacher_name(config: Mapping[str, Any]) -> str | None:
    """What the config calls the teacher; None for a run without one."""
    teacher = config.get("teacher")
    return teacher["model"] if teacher else None


def objective_text(config: Mapping[str, Any]) -> str:
    """The objective in one line, such as `kd: lambda_ce 0.8, lambda_kl 1.0, temperature 2.0`."""
    objective = dict(config.get("objective") or {})
    recipe = objective.pop("recipe", "")
    if recipe == "terms":
        return " + ".join(f"{_plain(term.get('weight', 1.0))} · {_term_text(term)}" for term in objective["terms"])
    parts = [f"{key} {_plain(value)}" for key, value in objective.items() if value]
    return f"{recipe}: {', '.join(parts)}" if parts else recipe


def _term_text(term: Mapping[str, Any]) -> str:
    """Such as `kl from teacher`."""
    return term.get("name") or term["kind"] + (f" from {term['target']}" if term.get("target") else "")


def _plain(value: Any) -> str:
    """A number, a schedule as `1.0 → 0.1 (linear)`, what a section names as its model, or the section's kind."""
    if isinstance(value, Mapping) and "model" in value:
        return str(value["model"])
    if isinstance(value, Mapping) and "start" not in value:
        return str(value.get("kind", "..."))
    if isinstance(value, Mapping):
        end = "" if value.get("end") is None else f" → {value['end']}"
        return f"{value.get('start')}{end} ({value.get('kind')})"
    return str(value)


def _split_tables(metrics: Metrics) -> list[dict[str, Any]]:
    """For each split its rows: label, utterances, and (teacher, student) scores."""
    tables = []
    for split, student in metrics.student.splits.items():
        teacher = metrics.teacher.splits.get(split) if metrics.teacher else None
        rows = [
            _score_row(code, teacher and teacher.per_language.get(code), score) for code, score in student.per_language.items()
        ]
        if len(rows) > 1 and student.macro:
            rows.append(_score_row("mean of languages", teacher and teacher.macro, student.macro))
        total = _score_row("all" if len(rows) > 1 else next(iter(student.per_language), "all"), teacher, student)
        tables.append({"split": split, "rows": rows if len(rows) > 1 else [], "total": total})
    return tables


def _measures(metrics: Metrics) -> dict[str, Any] | None:
    """What was measured on request: keys, headings, and the cells of each split and language; None where nothing was."""
    keys = measured(metrics)
    both = (("teacher", metrics.teacher), ("student", metrics.student))
    models = {name: model for name, model in both if model is not None}
    rows = []
    for split, student in metrics.student.splits.items():
        of_split = [model.splits.get(split) for model in models.values()]
        rows.append({"label": split, "total": True, "cells": _measure_cells(keys, of_split)})
        for code in student.per_language if len(student.per_language) > 1 else ():
            of_language = [scores and scores.per_language.get(code) for scores in of_split]
            rows.append({"label": code, "total": False, "cells": _measure_cells(keys, of_language)})
    headings = [f"{ON_REQUEST[key]}, {model}" for key in keys for model in models]
    return {"names": keys, "headings": headings, "rows": rows} if keys else None


def _measure_cells(keys: Sequence[str], models: Sequence[Score | None]) -> list[str]:
    return [format_measure(key, getattr(scores, key) if scores else None) for key in keys for scores in models]


def _score_row(label: str, teacher: Any, student: Any) -> dict[str, Any]:
    extra = student.model_extra or {}
    return {
        "label": label,
        "utterances": extra.get("utterances"),
        "teacher": teacher,
        "student": student,
        "change": student.wer - teacher.wer if teacher else None,
    }


def _scored(files: RunFiles) -> dict[str, Any] | None:
    """Size of the headline split."""
    rows = files.evaluations.get(("student", files.metrics.student.split)) if files.metrics else None
    if not rows:
        return None
    hours = sum(row.get("duration_s") or 0 for row in rows) / 3600
    return {"utterances": len(rows), "hours": hours, "languages": sorted({row["language"] for row in rows})}


def _examples(files: RunFiles) -> list[dict[str, Any]]:
    count = (files.config.get("evaluation") or {}).get("worst_sentences", 20)
    sections = []
    for (model, split), rows in sorted(files.evaluations.items()):
        if model != "student":
            continue
        teacher = files.evaluations.get(("teacher", split), [])
        sections.append(
            {
                "split": split,
                "typical": typical_examples(rows, teacher, TYPICAL_EXAMPLES),
                "worst": worst_examples(rows, teacher, count),
                "mistakes": common_mistakes(rows, COMMON_MISTAKES),
                "invalid_words": common_invalid_words(rows, teacher, COMMON_INVALID_WORDS),
            }
        )
    return sections


def _rejects(rows: list[Row]) -> list[dict[str, Any]]:
    """Reasons, commonest first, with their share and a few ids."""
    counts = Counter(row["reason"] for row in rows)
    return [
        {
            "reason": reason,
            "count": count,
            "share": count / len(rows),
            "ids": [str(row.get("id") or "?") for row in rows if row["reason"] == reason][:3],
        }
        for reason, count in counts.most_common()
    ]


def _data_splits(metrics: Metrics) -> list[dict[str, Any]]:
    """Utterances and hours by split and language, where the corpus says so."""
    splits = (metrics.data.model_extra or {}).get("splits") or {}
    return [{"split": split, **facts} for split, facts in splits.items() if isinstance(facts, Mapping)]


def normalizer_text(normalizer: Any) -> str:
    """Which normaliser texts were compared under, for one or for each language."""
    if isinstance(normalizer, Mapping):
        kinds: dict[str, list[str]] = {}
        for language, kind in normalizer.items():
            kinds.setdefault(kind if isinstance(kind, str) else json.dumps(kind), []).append(language)
        return "; ".join(kind if len(kinds) == 1 else f"{kind} for {', '.join(languages)}" for kind, languages in kinds.items())
    return str(normalizer or "")


def _read_rows(path: str) -> list[Row]:
    return pq.read_table(io.BytesIO(storage.read_bytes(path))).to_pylist()
