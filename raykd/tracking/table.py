"""The last lines on the terminal: teacher and student side by side, and where everything is."""

from rich import box
from rich.console import Console
from rich.table import Table

from raykd.tracking.metrics import Metrics, ModelMetrics
from raykd.tracking.run_folder import RunFolder


def print_result(metrics: Metrics, run: RunFolder, *, store: str | None = None, console: Console | None = None) -> None:
    """Print the result of a run. `store` says how to look at the MLflow runs (`mlflow.ui_command`)."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=120)
    console.print(result_table(metrics))
    places = {"student": run.student_dir, "report": run.report_path, "metrics": run.metrics_path, "MLflow": store}
    for name, place in places.items():
        if place:
            console.print(f"{name:<8} {place}", soft_wrap=True, highlight=False, markup=False)


def result_table(metrics: Metrics) -> Table:
    """One row a model; WER and CER on every test split, real-time factor and speed-up at the first batch size measured."""
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
        table.add_row("teacher", *_cells(metrics.teacher, metrics.student, speed.teacher_rtf if speed else None), "1.00x")
    student_speedup = f"{speed.speedup:.2f}x" if speed and speed.speedup is not None else "-"
    table.add_row("student", *_cells(metrics.student, metrics.student, speed.student_rtf if speed else None), student_speedup)
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


def format_rtf(rtf: float | None) -> str:
    """A real-time factor with three figures."""
    return "-" if rtf is None else f"{rtf:.3g}"


def _cells(model: ModelMetrics, columns: ModelMetrics, measured_rtf: float | None) -> list[str]:
    cells = [format_count(model.params)]
    for split in columns.splits:
        scores = model.splits.get(split)
        cells += [format_rate(scores.wer if scores else None), format_rate(scores.cer if scores else None)]
    return [*cells, format_rtf(measured_rtf if measured_rtf is not None else model.rtf)]
