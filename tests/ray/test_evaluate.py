"""Evaluation on Ray workers, the speed measurement and the `evaluate` command."""

import gzip
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from safetensors.torch import save_file

from raykd import evaluate
from raykd.config.training import EvaluationConfig
from raykd.data.corpus import Corpus
from raykd.errors import UserError
from raykd.evaluation.measures import ON_REQUEST
from raykd.evaluation.recogniser import ModelChoice
from raykd.evaluation.runner import EvaluationRequest, evaluate_local, evaluate_model
from raykd.evaluation.speed import measure_speed
from raykd.models.whisper import load_processor, load_whisper

CONFIG = EvaluationConfig(batch_size=5, max_new_tokens=12, speed_batch_sizes=(1, 4), speed_utterances=4)


def request(
    model: Path, corpus: Corpus, split: str, config: EvaluationConfig = CONFIG, weights: str | None = None
) -> EvaluationRequest:
    return EvaluationRequest(ModelChoice(str(model), weights=weights), corpus, split, config)


def test_workers_give_what_one_process_gives_whatever_their_number(lively_dir: Path, tiny_corpus: Corpus) -> None:
    alone = evaluate_local(request(lively_dir, tiny_corpus, "train"))
    told: list[tuple[int, int]] = []
    spread = evaluate_model(request(lively_dir, tiny_corpus, "train"), progress=lambda done, total: told.append((done, total)))
    assert spread.rows.equals(alone.rows)
    assert len(set(alone.rows.column("hypothesis").to_pylist())) > 5
    assert spread.rows.column("id").to_pylist() == sorted(tiny_corpus.index("train").ids)
    without_time = [{key: value for key, value in e.summary.items() if key != "rtf"} for e in (alone, spread)]
    assert without_time[0] == without_time[1]
    assert spread.summary["utterances"] == len(tiny_corpus.index("train"))
    assert spread.summary["rtf"] > 0
    assert told[-1] == (spread.summary["utterances"], spread.summary["utterances"])


def test_summary_agrees_with_the_rows(lively_dir: Path, tiny_corpus: Corpus, tmp_path: Path) -> None:
    evaluation = evaluate_local(replace(request(lively_dir, tiny_corpus, "train"), max_utterances=7))
    evaluation.save_rows(str(tmp_path / "rows.parquet"))
    evaluation.save_summary(str(tmp_path / "summary.json"))
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert len(rows) == summary["utterances"] == 7
    errors = {name: sum(row[name] for row in rows) for name in ("substitutions", "deletions", "insertions")}
    assert errors == {name: summary[name] for name in errors}
    assert summary["wer"] == pytest.approx(sum(errors.values()) / sum(row["words"] for row in rows))
    assert summary["cer"] == pytest.approx(sum(r["character_errors"] for r in rows) / sum(r["characters"] for r in rows))
    assert summary["normalizer"] == {"cs": "whisper-basic"}
    worst = evaluation.worst(3)
    assert [row["wer"] for row in worst] == sorted((row["wer"] for row in rows), reverse=True)[:3]


@pytest.fixture(scope="module")
def words_folder(lively_dir: Path, tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with half of the words that the lively model says, as a vocabulary."""
    said = evaluate_local(request(lively_dir, tiny_corpus, "train")).rows.column("hypothesis").to_pylist()
    words = sorted({word for text in said for word in text.split()})
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "words.txt.gz").write_bytes(gzip.compress("\n".join(words[::2]).encode()))
    return folder


def test_what_is_asked_for_is_measured_by_workers_as_in_one_process(
    lively_dir: Path, words_folder: Path, tiny_corpus: Corpus
) -> None:
    config = CONFIG.model_copy(update={"vocabulary": str(words_folder), "teacher_forced": True})
    alone = evaluate_local(request(lively_dir, tiny_corpus, "train", config))
    spread = evaluate_model(request(lively_dir, tiny_corpus, "train", config))
    assert spread.rows.drop_columns("loss").equals(alone.rows.drop_columns("loss"))
    assert spread.summary["loss"] == pytest.approx(alone.summary["loss"], rel=1e-5)
    rows, summary = spread.rows.to_pylist(), spread.summary
    assert summary["invalid_words"] == sum(len(row["invalid_words"]) for row in rows)
    assert summary["hypothesis_words"] == sum(len(row["hypothesis_normalized"].split()) for row in rows)
    assert 0 < summary["invalid_word_share"] < 1
    tokens = int(tiny_corpus.index("train").n_tokens.sum())
    assert summary["label_tokens"] == sum(row["label_tokens"] for row in rows) == tokens
    assert summary["loss"] == pytest.approx(sum(row["loss"] * row["label_tokens"] for row in rows) / tokens)
    assert summary["per_language"]["cs"]["teacher_forced_wer"] == summary["teacher_forced_wer"] > 0.5
    plain = evaluate_local(request(lively_dir, tiny_corpus, "train"))
    assert plain.rows.equals(alone.rows.select(plain.rows.column_names))
    assert not set(ON_REQUEST) & set(plain.summary)


def test_a_wrong_vocabulary_is_told_before_the_model_is_loaded(tiny_corpus: Corpus, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"vocabulary": str(tmp_path)})
    with pytest.raises(UserError, match=r"evaluation\.vocabulary: .* has no words\.txt\.gz"):
        evaluate_model(request(tmp_path / "no_model", tiny_corpus, "dev", config))


def test_weights_of_a_checkpoint_are_laid_over_the_model(
    lively_dir: Path, tiny_whisper_dir: Path, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    trained = dict(load_whisper(str(lively_dir)).named_parameters())
    save_file({name: tensor.detach().contiguous() for name, tensor in trained.items()}, tmp_path / "trainable.safetensors")
    weights = str(tmp_path / "trainable.safetensors")
    laid_over = evaluate_model(request(tiny_whisper_dir, tiny_corpus, "dev", weights=weights))
    assert laid_over.rows.equals(evaluate_local(request(lively_dir, tiny_corpus, "dev")).rows)
    assert not laid_over.rows.equals(evaluate_local(request(tiny_whisper_dir, tiny_corpus, "dev")).rows)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"model.decoder.layers.9.fc1.weight": torch.zeros(1)}, "no tensor named model.decoder.layers.9.fc1.weight"),
        ({"model.decoder.layer_norm.weight": torch.zeros(7)}, r"layer_norm.weight has shape \[7\]"),
        (None, "cannot be read as safetensors"),
    ],
)
def test_weights_of_another_model_are_a_mistake_of_one_line(
    tensors: dict[str, torch.Tensor] | None, message: str, tiny_whisper_dir: Path, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    if tensors is not None:
        save_file(tensors, weights)
    with pytest.raises(UserError, match=message) as mistake:
        evaluate_model(request(tiny_whisper_dir, tiny_corpus, "dev", weights=str(weights)))
    assert "\n" not in str(mistake.value)


def test_workers_find_room_beside_training_workers_that_hold_the_cpus(tiny_whisper_dir: Path, tiny_corpus: Corpus) -> None:
    training = placement_group([{"CPU": 0.9}] * 2)
    try:
        ray.get(training.ready())
        assert evaluate_model(request(tiny_whisper_dir, tiny_corpus, "dev")).summary["utterances"] > 0
    finally:
        remove_placement_group(training)


def test_a_killed_worker_is_replaced(lively_dir: Path, tiny_corpus: Corpus) -> None:
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if not killed:
            processes = psutil.Process().children(recursive=True)
            worker = next(p for p in processes if "_recognise" in " ".join(p.cmdline()))
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    config = CONFIG.model_copy(update={"batch_size": 1, "workers": 1})
    evaluation = evaluate_model(request(lively_dir, tiny_corpus, "train", config), progress=kill_one)
    assert killed
    assert evaluation.rows.column("id").to_pylist() == sorted(tiny_corpus.index("train").ids)


def test_speed_of_teacher_and_student(lively_dir: Path, tiny_whisper_dir: Path, tiny_corpus: Corpus) -> None:
    speed = measure_speed(str(lively_dir), str(tiny_whisper_dir), tiny_corpus, "train", CONFIG)
    assert set(speed) == {"batch_1", "batch_4"}
    for measured in speed.values():
        assert measured["speedup"] == pytest.approx(measured["teacher_rtf"] / measured["student_rtf"])
        assert measured["student_rtf"] > 0


@pytest.fixture(scope="module")
def unsplit_manifest(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest without its split and language columns."""
    rows = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    plain = [{"audio": str(manifest.parent / row["audio"]), "text": row["text"]} for row in rows]
    path = tmp_path_factory.mktemp("unsplit") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in plain))
    return path


def test_command_on_a_manifest_without_splits_takes_every_row(
    lively_dir: Path, unsplit_manifest: Path, ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A folder raykd did not make: the older tokenizer files only, and no generation config.
    model = tmp_path / "model"
    shutil.copytree(lively_dir, model)
    tokenizer = load_processor(str(lively_dir)).tokenizer
    for name in ("tokenizer.json", "generation_config.json", "processor_config.json"):
        (model / name).unlink(missing_ok=True)
    tokenizer.save_vocabulary(str(model))
    evaluate.main(
        [
            *("--model", str(model), "--data", str(unsplit_manifest), "--language", "cs", "--out", str(tmp_path / "out")),
            *(f"data.cache_dir={tmp_path / 'cache'}", "evaluation.max_new_tokens=8", "evaluation.worst_sentences=2"),
        ]
    )
    printed = capsys.readouterr().out
    rows = pq.read_table(tmp_path / "out" / "all.parquet")
    summary = json.loads((tmp_path / "out" / "all.json").read_text("utf-8"))
    assert rows.num_rows == summary["utterances"] == len(unsplit_manifest.read_text().splitlines())
    assert f"{summary['wer']:.4f}" in printed
    assert "whisper-basic" in printed
    assert "worst sentences" in printed
    assert "RTF" in printed


def test_command_takes_the_split_it_is_told(
    tiny_whisper_dir: Path, manifest: Path, ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--model",
        str(tiny_whisper_dir),
        "--data",
        str(manifest),
        f"data.cache_dir={tmp_path}",
        "evaluation.max_new_tokens=3",
    ]
    evaluate.main([*arguments, "--out", str(tmp_path / "out")])
    assert pq.read_table(tmp_path / "out" / "test.parquet").num_rows == 4
    assert "invalid words" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--split: .* has no split other; it has dev, test, train"):
        evaluate.main([*arguments, "--split", "other"])


def test_command_counts_invalid_words_and_forces_the_teacher(
    lively_dir: Path, words_folder: Path, manifest: Path, ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"data.cache_dir={tmp_path}", "evaluation.max_new_tokens=8"]
    arguments = ["--model", str(lively_dir), "--data", str(manifest), *settings]
    evaluate.main([*arguments, "--vocabulary", str(words_folder), "--teacher-forced", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "test.json").read_text("utf-8"))
    assert f"{summary['invalid_word_share']:.4f} ({summary['invalid_words']} of {summary['hypothesis_words']})" in printed
    for key in ("loss", "teacher_forced_wer", "teacher_forced_cer"):
        assert f"{summary[key]:.4f}" in printed
    with pytest.raises(UserError, match=r"evaluation\.vocabulary: nowhere\.txt does not exist"):
        evaluate.main([*arguments, "--vocabulary", "nowhere.txt"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "missing.jsonl"], "missing.jsonl"),
        (["--data", "missing_folder"], "missing_folder does not exist"),
        (["data.max_dev=3"], "data.max_dev"),
        (["evaluation.batch_size=0"], "evaluation.batch_size"),
        (["train.lr=1"], "train"),
        (["--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tiny_whisper_dir: Path, manifest: Path, ray_local: None, tmp_path: Path
) -> None:
    usual = ["--model", str(tiny_whisper_dir), "--data", str(manifest), f"data.cache_dir={tmp_path}"]
    with pytest.raises(UserError, match=message) as mistake:
        evaluate.main([*usual, *arguments])
    assert "\n" not in str(mistake.value)


def test_help_tells_what_the_numbers_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--help"])
    assert end.value.code == 0
    assert "fractions of 1" in capsys.readouterr().out
