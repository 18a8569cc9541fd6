import io
import json

import pytest
from rich.console import Console

from raykd.evaluation.measures import ON_REQUEST
from raykd.tracking.metrics import Metrics, ModelMetrics, build_metrics, package_versions
from raykd.tracking.run_folder import RunFolder
from raykd.tracking.table import format_count, print_result
from tests.unit.example_run import example_metrics, example_rows


def test_metrics_have_the_promised_shape() -> None:
    metrics = json.loads(example_metrics().to_json())
    assert set(metrics) == {"teacher", "student", "train", "speed", "data", "versions"}
    for model in ("teacher", "student"):
        assert {"params", "wer", "cer", "per_language"} <= set(metrics[model])
        assert isinstance(metrics[model]["params"], int)
        assert 0 < metrics[model]["wer"] < 1
        assert set(metrics[model]["per_language"]) == {"cs", "pl"}
        assert {"wer", "cer"} <= set(metrics[model]["per_language"]["cs"])
        assert metrics[model]["normalizer"] == {"cs": "whisper-basic", "pl": "whisper-basic"}
        assert set(metrics[model]["splits"]) == {"test", "test_ood"}
        assert metrics[model]["split"] == "test"
    counted = {"steps", "utterances_seen", "utterances_per_s", "wall_s", "tokens", "parameters", "teacher_passes", "memory_gb"}
    assert set(metrics["train"]) == counted
    assert metrics["speed"]["batch_1"] == {"teacher_rtf": 0.05, "student_rtf": 0.02, "speedup": 2.5}
    assert {"utterances", "rejected", "hours"} <= set(metrics["data"])
    assert metrics["versions"]["torch"]
    assert metrics["versions"] == package_versions()


def test_the_headline_is_the_first_split() -> None:
    easy, hard = example_rows("teacher")[1], example_rows("student")[1]
    metrics = ModelMetrics.of(5, {"test": hard, "test_ood": easy})
    assert (metrics.wer, metrics.split) == (hard["wer"], "test")


def test_a_run_without_a_teacher_has_a_null_one() -> None:
    assert json.loads(example_metrics(teacher=False, speed=False).to_json())["teacher"] is None


@pytest.mark.parametrize("wrong", [{"wall_s": float("nan")}, {"steps": -1}, {"tokens": None}])
def test_an_impossible_number_is_refused_by_name(wrong: dict[str, float]) -> None:
    train = {"steps": 1, "utterances_seen": 1, "utterances_per_s": 1.0, "wall_s": 1.0, "tokens": 1, **wrong}
    student = ModelMetrics.of(5, {"test": example_rows("student")[1]})
    with pytest.raises(ValueError, match=f"train.{next(iter(wrong))}"):
        build_metrics(teacher=None, student=student, train=train, speed={}, data={"utterances": 1, "rejected": 0, "hours": 1})


def test_the_table_shows_both_models_and_where_things_are() -> None:
    text = _printed(RunFolder("/shared/a-rather-long-folder-name" * 4))
    teacher, student = (
        next(line for line in text.splitlines() if line.strip().startswith(name)) for name in ("teacher", "student")
    )
    assert teacher.split() == ["teacher", "4.1", "M", "1.75", "%", "1.33", "%", "1.75", "%", "1.33", "%", "0.05", "1.00x"]
    assert student.split() == ["student", "1.2", "M", "10.53", "%", "4.64", "%", "10.53", "%", "4.64", "%", "0.02", "2.50x"]
    assert f"report   {'/shared/a-rather-long-folder-name' * 4}/report.html\n" in text
    assert text.rstrip().endswith("MLflow   mlflow ui")


def test_the_table_does_without_teacher_and_speed() -> None:
    console = Console(file=io.StringIO())
    print_result(example_metrics(teacher=False, speed=False, languages=("cs",)), RunFolder("/r"), console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "teacher" not in text
    assert "MLflow" not in text
    assert "12.70 %" in text


@pytest.mark.parametrize(("count", "text"), [(950, "950"), (83_400, "83.4 k"), (1_543_000_000, "1.54 B")])
def test_counts_are_written_as_people_say_them(count: int, text: str) -> None:
    assert format_count(count) == text


def _printed(run: RunFolder) -> str:
    console = Console(file=io.StringIO())
    print_result(example_metrics(), run, store="mlflow ui", console=console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_what_was_asked_for_is_in_the_file_and_nothing_else() -> None:
    plain, asked = (json.loads(example_metrics(measured=measured).to_json()) for measured in (False, True))
    of_any_model = {key for key in ON_REQUEST if not key.startswith("expert_use")}
    for metrics, expected in ((plain, set()), (asked, of_any_model)):
        for model in ("teacher", "student"):
            for part in (metrics[model], metrics[model]["splits"]["test_ood"], metrics[model]["per_language"]["pl"]):
                assert set(ON_REQUEST) & set(part) == expected
    assert asked["student"]["invalid_word_share"] == pytest.approx(4 / 108)
    assert (asked["student"]["invalid_words"], asked["teacher"]["invalid_words"]) == (4, 0)
    assert (asked["student"]["loss"], asked["teacher"]["loss"]) == (1.5, 0.75)
    assert Metrics.model_validate(asked).student.per_language["pl"].invalid_word_share == pytest.approx(2 / 49)


def test_what_was_asked_for_is_a_table_of_its_own() -> None:
    console = Console(file=io.StringIO())
    print_result(example_metrics(measured=True), RunFolder("/r"), console=console)
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["test", "teacher", "0.00", "%", "0.7500", "50.00", "%", "5.00", "%"] in lines
    assert ["test_ood", "student", "3.70", "%", "1.5000", "50.00", "%", "5.00", "%"] in lines
    assert "invalid words" not in _printed(RunFolder("/r"))


def test_factors_taken_while_scoring_do_not_stand_side_by_side() -> None:
    console = Console(file=io.StringIO())
    print_result(example_metrics(speed=False), RunFolder("/r"), console=console)
    rows = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert [row[-2:] for row in rows if row[:1] == ["teacher"]] == [["-", "-"]]
    assert [row[-2:] for row in rows if row[:1] == ["student"] and "M" in row] == [["-", "-"]]
    alone = Console(file=io.StringIO())
    print_result(example_metrics(teacher=False, speed=False), RunFolder("/r"), console=alone)
    assert "0.02" in alone.file.getvalue()  # type: ignore[attr-defined]
