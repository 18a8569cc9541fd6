"""The charts of the report: (caption, SVG) pairs made from a run's history and metrics."""

from collections.abc import Mapping
from typing import Any

from raykd.evaluation.measures import HEADINGS
from raykd.tracking.history import History
from raykd.tracking.metrics import Metrics
from raykd.tracking.plots import Line, bar_chart, line_chart

_DEV_CHARTS = (
    (("wer", "cer"), "Student on the dev split during training, in percent"),
    (("loss",), "Loss on the dev split, mean per label token in nats"),
    (("invalid_word_share",), "Invalid words on the dev split, in percent"),
    (("teacher_forced_wer", "teacher_forced_cer"), "Arg-max with gold prefixes on the dev split, in percent"),
)


def training_plots(history: History) -> list[tuple[str, str]]:
    """(caption, SVG) of everything that changes over steps."""
    train = history.train
    steps = [record["step"] for record in train]
    terms: dict[str, Line] = {name: (steps, [record["terms"].get(name) for record in train]) for name in _names(train, "terms")}
    plots = []
    if train:
        loss: dict[str, Line] = {"loss": (steps, [record.get("loss") for record in train])}
        if list(terms) != ["ce"] or terms["ce"][1] != loss["loss"][1]:
            loss |= terms
        plots.append(("Loss and its terms, mean per token (terms before weighting)", line_chart("loss", loss)))
    if len(_names(train, "weights")) > 1:
        weights: dict[str, Line] = {
            name: (steps, [record["weights"].get(name) for record in train]) for name in _names(train, "weights")
        }
        plots.append(("Weights of the terms", line_chart("weights", weights, first_color=1)))
    plots += _dev_plots(history)
    for key, caption in (
        ("lr", "Learning rate"),
        ("grad_norm", "Gradient norm before clipping"),
        ("utterances_per_s", "Utterances trained per second"),
        ("floor_share", "Share of the floor: matrix products at the speed of one large one, by the time taken"),
        ("data_wait", "Share of the time that was waited for data"),
    ):
        values = [record.get(key) for record in train]
        if any(value is not None for value in values):
            plots.append((caption, line_chart(key, {key: (steps, values)})))
    return plots


def _dev_plots(history: History) -> list[tuple[str, str]]:
    """(caption, SVG) of what was measured on the dev split, over steps."""
    plots = []
    for keys, caption in _DEV_CHARTS:
        lines: dict[str, Line] = {}
        for key in keys:
            dev = [record for record in history.eval if is_dev(record, key)]
            scale = 1 if key == "loss" else 100
            if dev:
                lines[HEADINGS[key]] = ([record["step"] for record in dev], [scale * record[key] for record in dev])
        if lines:
            plots.append((caption, line_chart(f"dev {keys[0]}", lines, marks=True)))
    return plots


def _names(train: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(name for record in train for name in record.get(key, {})))


def is_dev(record: Mapping[str, Any], key: str = "wer") -> bool:
    """Whether an evaluation was on the dev split and measured this."""
    return record.get("split", "dev") == "dev" and record.get(key) is not None


def result_plots(metrics: Metrics) -> list[tuple[str, str]]:
    """(caption, SVG) of WER and CER by language on the headline split."""
    languages = list(metrics.student.per_language)
    models = {"teacher": metrics.teacher, "student": metrics.student}
    plots = []
    for key in ("wer", "cer"):
        series = {
            name: [100 * getattr(model.per_language[code], key) if code in model.per_language else None for code in languages]
            for name, model in models.items()
            if model is not None
        }
        title = f"{key.upper()} on {metrics.student.split}, in percent"
        plots.append((title, bar_chart(f"{key} by language", languages, series)))
    return plots
