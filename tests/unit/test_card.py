import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from raykd.tracking.card import is_hub_id, render_card, write_card
from tests.unit.example_run import example_config, example_metrics, make_run


def test_the_hub_can_read_the_card(tmp_path: Path) -> None:
    run = make_run(example_config(tmp_path))
    run.write_text("student/config.json", json.dumps({"max_source_positions": 1500}))
    write_card(run)
    card = ModelCard.load(Path(run.student_dir) / "README.md")
    data = card.data.to_dict()
    assert data["base_model"] == "openai/whisper-large-v2"
    assert data["language"] == ["cs", "pl"]
    assert data["license"] == "apache-2.0"
    assert (data["pipeline_tag"], data["library_name"]) == ("automatic-speech-recognition", "transformers")
    results = {(result.dataset_split, result.metric_type): result.metric_value for result in card.data.eval_results or []}
    assert results[("test", "wer")] == 10.53
    assert set(results) == {(split, rate) for split in ("test", "test_ood") for rate in ("wer", "cer")}
    assert "| test | all | 1.75 % | 10.53 % | 1.33 % | 4.64 % |" in card.text
    assert "at most 30 seconds" in card.text
    assert 'generate_kwargs={"language": "cs"}' in card.text


def test_a_card_without_teacher_names_no_machine_path(tmp_path: Path) -> None:
    source = [{"kind": "manifest", "path": str(tmp_path / "calls.jsonl")}]
    config = example_config(
        tmp_path, teacher=None, student={"init": "scratch"}, objective={"recipe": "ce"}, data={"source": source}
    )
    metrics = example_metrics(teacher=False, speed=False, languages=("cs",))
    text = render_card("mine", config.model_dump(mode="json"), metrics, 5.0)
    assert str(tmp_path) not in text
    assert "calls.jsonl" in text
    assert "base_model" not in text
    assert "random weights" in text
    assert "synthetic" not in text
    assert "teacher" not in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/whisper-tiny", True),
        ("runs/demo.yaml", False),
        ("/models/big", False),
        ("./a", False),
        (None, False),
        ("x", False),
    ],
)
def test_hub_ids_are_told_from_paths(name: str | None, expected: bool) -> None:
    assert is_hub_id(name) is expected


def test_the_card_tells_invalid_words_where_they_were_counted(tmp_path: Path) -> None:
    config = example_config(tmp_path).model_dump(mode="json")
    plain, counted = (render_card("mine", config, example_metrics(measured=measured), 5.0) for measured in (False, True))
    assert "| test | all | 1.75 % | 10.53 % | 1.33 % | 4.64 % | 3.70 % |\n| test_ood | cs |" in counted
    assert "| teacher CER | CER | invalid words |\n|---|---|--:|--:|--:|--:|--:|\n| test | cs |" in counted
    assert "does not have.\n\n| | parameters |" in counted
    assert "nvalid words" not in plain
    assert "| teacher CER | CER |\n|---|---|--:|--:|--:|--:|\n| test | cs |" in plain
    assert "letters.\n\n| | parameters |" in plain or "basic.\n\n| | parameters |" in plain
