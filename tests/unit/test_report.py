import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from raykd.tracking.examples import common_mistakes, worst_examples
from raykd.tracking.history import HistoryWriter
from raykd.tracking.plots import MAX_POINTS, line_chart, thinned
from raykd.tracking.report import objective_text, write_report
from raykd.tracking.run_folder import RunFolder
from tests.unit.example_run import SENTENCES, example_config, example_metrics, example_rows, make_run, train_record, write_table

pytestmark = pytest.mark.slow


def report_of(run: RunFolder) -> str:
    write_report(run)
    return Path(run.report_path).read_text("utf-8")


def text_of(html: str) -> str:
    """What a reader sees: no style, no charts, no tags."""
    html = re.sub(r"<(style|svg).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_report_tells_the_whole_run(tmp_path: Path) -> None:
    html = report_of(make_run(example_config(tmp_path)))
    text = text_of(html)
    assert "its teacher, openai/whisper-large-v2, has 4.1 M" in text
    assert "24 utterances, 0.02 hours, languages cs, pl" in text
    assert "it gets 10.53 % of the words wrong, the teacher 1.75 %: 8.77 points more for the student" in text
    assert "best word error rate on the dev split was 10.00 %, at step 40" in text
    assert "mean of languages 1.59 % 10.27 % +8.68" in text
    assert "unreadable audio 3" in text
    assert "a worker was lost; went on from step 20" in text
    assert "lambda_kl 1.0" in text
    assert f"python -m raykd.distill --config {tmp_path}/example/config.yaml" in text
    assert html.count("<svg") == 8


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = report_of(make_run(example_config(tmp_path)))
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="(?!#)', html.replace("xlink:href", "href"))
    assert len(html) < 250_000


def test_differences_are_marked_and_markup_in_transcripts_is_harmless(tmp_path: Path) -> None:
    html = report_of(make_run(example_config(tmp_path)))
    assert "<del>kuchni</del><ins>kuchnia</ins>" in html
    assert "<del>do</del>" in html
    run = make_run(example_config(tmp_path, name="markup"))
    rows, _ = example_rows("student")
    hypotheses = pa.array(["<script>alert(1)</script>"] * len(rows))
    rows = rows.set_column(rows.schema.get_field_index("hypothesis_normalized"), "hypothesis_normalized", hypotheses)
    write_table(run, "evaluation/student-test.parquet", rows)
    assert "<script" not in report_of(run)


@pytest.mark.parametrize("missing", ["metrics.json", "history.jsonl", "evaluation", "rejects", "everything"])
def test_missing_parts_are_left_out(tmp_path: Path, missing: str) -> None:
    run = make_run(example_config(tmp_path))
    for name in ("metrics.json", "history.jsonl", "evaluation", "rejects"):
        if missing in {name, "everything"}:
            Path(run.at(name)).rename(tmp_path / name)
    text = text_of(report_of(run))
    assert ("This run is not finished" in text) == (missing in {"metrics.json", "everything"})
    assert ("Rows that could not be used" in text) == (missing not in {"rejects", "everything"})
    assert ("Typical" in text) == (missing not in {"evaluation", "everything"})


def test_a_run_without_teacher_speed_or_second_language(tmp_path: Path) -> None:
    config = example_config(tmp_path, teacher=None, student={"init": "scratch"}, objective={"recipe": "ce"})
    run = make_run(config, languages=("cs",))
    for split in ("test", "test_ood"):
        Path(run.evaluation_path("teacher", split)).unlink()
    run.write_text("metrics.json", example_metrics(teacher=False, speed=False, languages=("cs",)).to_json())
    text = text_of(report_of(run))
    assert "language cs) it gets 12.70 % of the words wrong." in text
    assert "teacher" not in text.split("To repeat this run")[0]
    assert "mean of languages" not in text


def test_a_nan_loss_is_a_gap_not_a_crash(tmp_path: Path) -> None:
    run = RunFolder.create(example_config(tmp_path))
    history = HistoryWriter(run.history_path)
    for step in range(1, 5):
        history.record(train_record(step, loss=float("nan")))
    assert "with a loss of nan" in text_of(report_of(run))


def test_charts_are_valid_svg_that_follows_the_page() -> None:
    svg = line_chart("loss", {"loss": ([1, 2], [3.0, None]), "ce": ([1, 2], [1.0, 2.0])})
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "var(--series-2, #d97706)" in svg
    assert "var(--ink, " in svg


def test_long_runs_are_thinned_to_means() -> None:
    xs, ys = thinned(list(range(3000)), [float(x) for x in range(3000)])
    assert len(xs) == MAX_POINTS
    assert xs == ys
    assert xs[0] == 4.5


def test_worst_sentences_and_common_mistakes() -> None:
    student, teacher = (example_rows(model)[0].to_pylist() for model in ("student", "teacher"))
    worst = worst_examples(student, teacher, 3)
    assert [example.student_errors for example in worst] == [2, 2, 1]
    assert worst[0].reference == SENTENCES["cs"][2].lower()
    assert worst[0].teacher == [("equal", SENTENCES["cs"][2].lower(), "")] or worst[0].teacher_errors == 0
    mistakes = {(mistake.reference, mistake.hypothesis): mistake.count for mistake in common_mistakes(student, 10)}
    assert mistakes[("do", "")] == 6
    assert mistakes[("kuchni", "kuchnia")] == 2


def test_objectives_in_words(tmp_path: Path) -> None:
    terms = [{"kind": "ce"}, {"kind": "kl", "weight": {"kind": "linear", "start": 1.0, "end": 0.1}}]
    config = example_config(tmp_path, objective={"recipe": "terms", "terms": terms})
    assert objective_text(json.loads(config.model_dump_json())) == "1.0 · ce + 1.0 → 0.1 (linear) · kl from teacher"
    config = example_config(tmp_path, objective={"recipe": "mlm_kd", "mlm": "lm", "lambda_lm": 0.5})
    assert (
        objective_text(json.loads(config.model_dump_json()))
        == "mlm_kd: mlm lm, preset code, lambda_lm 0.5, mlm_temperature 1.0"
    )


def test_an_event_without_text_is_shown_by_its_name(tmp_path: Path) -> None:
    run = make_run(example_config(tmp_path))
    HistoryWriter(run.history_path).record({"kind": "event", "event": "resumed"})
    assert "resumed" in text_of(report_of(run))


def test_what_was_asked_for_has_a_table_charts_and_words(tmp_path: Path) -> None:
    config = example_config(tmp_path, evaluation={"vocabulary": "words.txt.gz", "teacher_forced": True})
    html = report_of(make_run(config, measured=True))
    text = text_of(html)
    assert "invalid words, teacher invalid words, student loss, teacher loss, student teacher-forced WER, teacher" in text
    assert "test 0.00 % 3.70 % 0.7500 1.5000 50.00 % 50.00 % 5.00 % 5.00 % cs 0.00 % 3.39 %" in text
    assert "does not have (words.txt.gz)" in text
    assert "Loss on the dev split" in text
    assert "Invalid words on the dev split" in text
    assert "Arg-max with gold prefixes on the dev split" not in text
    assert "kuchnia 2 times, teacher 0" in text
    assert html.count("<svg") == 10


def test_nothing_asked_for_nothing_shown(tmp_path: Path) -> None:
    text = text_of(report_of(make_run(example_config(tmp_path))))
    for word in ("invalid words", "Measured on request", "Loss on the dev split", "eacher-forced"):
        assert word not in text


def test_the_speed_says_what_compares(tmp_path: Path) -> None:
    text = text_of(report_of(make_run(example_config(tmp_path))))
    assert "both models in one process, taking turns on the same utterances: the only ones to compare" in text
