"""What the training of a masked language model shows: its report, its numbers in MLflow, its lines on the terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from raykd.config import MlmRunConfig
from raykd.tracking.history import HistoryWriter
from raykd.tracking.mlflow_values import points_of_record
from raykd.tracking.mlm import MlmMetrics, points_of_mlm_metrics, write_mlm_report
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder

SCORES = {"loss": 2.5, "top1_accuracy": 0.4, "top5_accuracy": 0.65, "pseudo_perplexity": 12.18}
METRICS = MlmMetrics.model_validate(
    {
        "mlm": {"params": 62_260_000, "vocabulary": "abc", **SCORES},
        "train": {"steps": 20, "segments_seen": 640, "segments_per_s": 51.5, "wall_s": 12.4, "tokens": 640},
        "data": {
            "segments": 1200,
            "bytes": 99_000,
            "lines": {"read": 500, "kept": 450, "duplicate": 30, "short": 18},
            "rejected": 2,
            "rejects": {"not UTF-8": 2},
            "splits": {"train": {"segments": 1140}, "dev": {"segments": 60}},
        },
        "versions": {"raykd": "0"},
    }
)
EVAL = {"kind": "eval", "step": 20, "split": "dev", **SCORES}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    text = {"source": "demo", "language": "cs"}
    config = MlmRunConfig.model_validate({"text": text, "train": {"steps": 20}, "output_dir": str(tmp_path)})
    run = RunFolder.create(config)
    history = HistoryWriter(run.history_path)
    for step in range(1, 21):
        history.record({"kind": "train", "step": step, "steps": 20, "loss": 9.0 / step, "lr": 1e-3})
    history.record(EVAL)
    history.record({"kind": "event", "step": 7, "text": "a training worker was lost after step 9"})
    run.write_text("metrics.json", METRICS.to_json())
    return run


def test_the_report_has_the_numbers_and_what_became_of_the_text(run: RunFolder) -> None:
    write_mlm_report(run)
    assert run.finished
    page = run.read_text("report.html")
    for shown in (
        "62.3 M",
        "2.500",
        "40.00 %",
        "65.00 %",
        "12.2",
        "1 140",
        "not UTF-8",
        "a training worker was lost after step 9",
    ):
        assert shown in page, shown
    assert page.count("<svg") == 4
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_mlflow_gets_dev_scores_while_training_and_at_the_end() -> None:
    while_training = {point.key: point.value for point in points_of_record(EVAL)}
    assert while_training == {f"eval/{key}": value for key, value in SCORES.items()}
    at_the_end = {point.key: point.value for point in points_of_mlm_metrics(METRICS)}
    assert {f"dev/{key}": value for key, value in SCORES.items()}.items() <= at_the_end.items()
    assert at_the_end["total/segments_per_s"] == 51.5
    assert {point.step for point in points_of_mlm_metrics(METRICS)} == {20}


def test_the_terminal_says_segments_and_dev_scores() -> None:
    out = io.StringIO()
    progress = Progress(console=Console(file=out, width=200), every_s=0)
    progress.phase("training", total=20, unit="steps")
    progress.record({"kind": "train", "step": 20, "steps": 20, "epoch": 1.0, "loss": 2.0, "segments_per_s": 51.5})
    progress.record(EVAL)
    assert "loss 2.0000, 51.5 segments/s" in out.getvalue()
    assert "evaluation at step 20: dev loss 2.5000, top-1 40.00 %, top-5 65.00 %, pseudo-perplexity 12.2" in out.getvalue()
