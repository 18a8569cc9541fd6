"""The last lines on the terminal: teacher and student side by side, and where everything is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raykd.evaluation.measures import ON_REQUEST
from raykd.tracking.metrics import Metrics, ModelMetrics
from raykd.tracking.run_folder import RunFolder


@dataclass(frozen=True)
class CellTable:
    """A table of texts."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    names: int = 1
    """First columns that are names, not numbers."""


def print_tables(tables: Iterable[CellTable], sentences: Iterable[str], console: Console | None = None) -> Console:
    """Print tables and what they say; wide where there is no terminal. The console that was printed to."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=160)
    for one in tables:
        table = Table(title=one.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, heading in enumerate(one.header):
            table.add_column(heading, justify="left" if number < one.names else "right")
        for row in one.rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False)
    return console


def print_result(metrics: Metrics, run: RunFolder, *, store: str | None = None, console: Console | None = None) -> None:
    """Print the result of a run. `store` says how to look at the MLflow runs (`mlflow.ui_command`)."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=120)
    console.print(result_table(metrics))
    if measured(metrics):
        console.print(measures_table(metrics))
    places = {"student": run.student_dir, "report": run.report_path, "metrics": run.metrics_path, "MLflow": store}
    print_places(places, console)


def print_places(places: Mapping[str, str | None], console: Console) -> None:
    """A line for each thing that the run left behind."""
    for name, place in places.items():
        if place:
            console.print(f"{name:<8} {place}", soft_wrap=True, highlight=False, markup=False)


def result_table(metrics: Metrics) -> Table:
    """One row a model; WER and CER on every test split, real-time factor and speed-up at the first batch size measured.

    A student without a teacher is not timed, and shows the factor it was scored at; with a teacher that would not compare.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "parameters"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for split in metrics.student.splits:
        for rate in ("WER", "CER"):
            table.add_column(f"{split}\n{rate}", justify="right", no_wrap=True)
    table.add_column("real-time\nfactor", justify="right", no_wrap=True)
    table.add_column("speed-up", justify="right", no_wrap=True)
    speed = next(iter(metrics.speed.values()), None)
    if metrics.teacher:
        teacher_rtf = speed.teacher_rtf if speed else None
        table.add_row("teacher", *_cells(metrics.teacher, metrics.student, teacher_rtf), "1.00x" if speed else "-")
    student_speedup = f"{speed.speedup:.2f}x" if speed and speed.speedup is not None else "-"
    alone = metrics.student.rtf if metrics.teacher is None else None
    student_rtf = speed.student_rtf if speed else alone
    table.add_row("student", *_cells(metrics.student, metrics.student, student_rtf), student_speedup)
    return table


def measured(metrics: Metrics) -> list[str]:
    """What was measured on request: keys of `evaluation.measures.ON_REQUEST`."""
    return [key for key in ON_REQUEST if any(getattr(scores, key) is not None for scores in metrics.student.splits.values())]


def measures_table(metrics: Metrics) -> Table:
    """What was measured on request, one row a split and model."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("split", no_wrap=True)
    table.add_column("", no_wrap=True)
    keys = measured(metrics)
    for key in keys:
        table.add_column(ON_REQUEST[key], justify="right", no_wrap=True)
    for split in metrics.student.splits:
        for name, model in (("teacher", metrics.teacher), ("student", metrics.student)):
            if model is not None and split in model.splits:
                table.add_row(split, name, *(format_measure(key, getattr(model.splits[split], key)) for key in keys))
    return table


def format_count(count: int) -> str:
    """A count of parameters as people say it: 1.54 B, 756 M, 83.4 k."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def format_number(value: float | None) -> str:
    """A number with its thousands apart: 12 000."""
    if value is None:
        return "?"
    return f"{value:,.0f}".replace(",", " ") if float(value).is_integer() else f"{value:,.1f}".replace(",", " ")


def format_rate(rate: float | None) -> str:
    """A WER or CER in percent."""
    return "-" if rate is None else f"{100 * rate:.2f} %"


def format_measure(key: str, value: float | None) -> str:
    """Losses and perplexities as numbers, shares and rates in percent."""
    digits = {"loss": 4, "pseudo_perplexity": 1}.get(key)
    if value is None or digits is None:
        return format_rate(value)
    return f"{value:.{digits}f}"


def format_rtf(rtf: float | None) -> str:
    """A real-time factor with three figures."""
    return "-" if rtf is None else f"{rtf:.3g}"


def _cells(model: ModelMetrics, columns: ModelMetrics, rtf: float | None) -> list[str]:
    cells = [format_count(model.params)]
    for split in columns.splits:
        scores = model.splits.get(split)
        cells += [format_rate(scores.wer if scores else None), format_rate(scores.cer if scores else None)]
    return [*cells, format_rtf(rtf)]
