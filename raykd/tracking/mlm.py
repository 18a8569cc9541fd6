"""What a masked language model's training leaves behind: metrics.json, MLflow's final numbers, the report, the last lines."""

import json
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich import box
from rich.console import Console
from rich.table import Table

from raykd import storage
from raykd.tracking.history import History, Record, read_history
from raykd.tracking.mlflow_values import Point, points
from raykd.tracking.plots import line_chart
from raykd.tracking.report import TEMPLATES
from raykd.tracking.run_folder import RunFolder
from raykd.tracking.table import format_count, format_rate, print_places

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Numbers(BaseModel):
    """Further keys are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class MlmScores(_Numbers):
    """The model and how well it guesses one masked token of each dev segment."""

    params: int
    vocabulary: str
    """Hash of its tokenizer's vocabulary."""
    loss: Amount
    """Nats a masked token."""
    top1_accuracy: Share
    top5_accuracy: Share
    pseudo_perplexity: Amount


class MlmTrainMetrics(_Numbers):
    """What training did; tokens are the masked ones."""

    steps: int
    segments_seen: int
    segments_per_s: Amount
    wall_s: Amount
    tokens: int


class MlmMetrics(_Numbers):
    """The whole file."""

    mlm: MlmScores
    train: MlmTrainMetrics
    data: dict[str, Any]
    """Summary of the text corpus."""
    versions: dict[str, str]

    def to_json(self) -> str:
        """The text of `metrics.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def points_of_mlm_metrics(metrics: MlmMetrics) -> list[Point]:
    """The final numbers: `dev/loss`, `dev/top5_accuracy`, `total/segments_per_s`, ..."""
    values: dict[str, Any] = {f"dev/{key}": value for key, value in metrics.mlm.model_dump().items()}
    values |= {f"total/{key}": value for key, value in metrics.train.model_dump().items()}
    values |= {f"data/{key}": metrics.data.get(key) for key in ("segments", "bytes", "rejected")}
    return points(values, metrics.train.steps)


def write_mlm_report(run: RunFolder, path: str | None = None) -> None:
    """Write `report.html` of a finished run's folder, there or elsewhere."""
    config, metrics, history = run.read_text("config.yaml"), run.read_json("metrics.json"), read_history(run.history_path)
    page = TEMPLATES.get_template("mlm_report.html").render(
        name=run.name,
        config=yaml.safe_load(config),
        config_yaml=config,
        config_path=run.config_path,
        mlm=metrics["mlm"],
        train=metrics["train"],
        data=metrics["data"],
        plots=_plots(history),
        events=history.events,
    )
    storage.write_text(path or run.report_path, page)


def _plots(history: History) -> list[dict[str, str]]:
    def lines(records: list[Record], *keys: str) -> Any:
        return {key: ([r["step"] for r in records], [r.get(key) for r in records]) for key in keys}

    charts = {
        "Loss on training text, nats a masked token": (lines(history.train, "loss"), False),
        "Loss on dev": (lines(history.eval, "loss"), True),
        "Share of right guesses on dev": (lines(history.eval, "top1_accuracy", "top5_accuracy"), True),
        "Learning rate": (lines(history.train, "lr"), False),
    }
    return [{"title": title, "svg": line_chart(title, drawn, marks=marks)} for title, (drawn, marks) in charts.items()]


def print_mlm_result(metrics: MlmMetrics, run: RunFolder, *, store: str | None = None) -> None:
    """Print the result of a run, as `table.print_result`."""
    scores, table = metrics.mlm, Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "parameters", "dev loss", "top-1", "top-5", "pseudo-perplexity"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    rates = format_rate(scores.top1_accuracy), format_rate(scores.top5_accuracy)
    row = ("mlm", format_count(scores.params), f"{scores.loss:.3f}", *rates, f"{scores.pseudo_perplexity:.1f}")
    table.add_row(*row)
    console = Console()
    console.print(table)
    print_places({"mlm": run.mlm_dir, "report": run.report_path, "metrics": run.metrics_path, "MLflow": store}, console)
