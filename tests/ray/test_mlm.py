"""From text to a masked language model to a student it teaches, as a user runs it; and what must not change its training."""

import json
import lzma
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import yaml

from raykd.config import MlmRunConfig
from raykd.config.text import TextConfig
from raykd.data.corpus import Corpus
from raykd.data.text_corpus import prepare_text
from raykd.models.demo import demo_tokenizer
from raykd.models.masked_lm import load_masked_lm, new_masked_lm, save_masked_lm
from raykd.tracking.history import read_history
from raykd.training.checkpoint import delete_checkpoint, list_checkpoints, step_of
from raykd.training.mlm_job import MlmJob
from tests.jobs import WORDS
from tests.ray.commands import run_here, start
from tests.ray.histories import recorded_steps
from tests.training.workers import final_parameters, train_in_processes

MakeMlmJob = Callable[..., MlmJob]
STEPS = 6
pytestmark = pytest.mark.timeout(600)


def write_text(path: Path, lines: int) -> Path:
    """Lines of eight words, each line once, packed as CC100 is."""
    words = [[WORDS[(line // len(WORDS) ** place) % len(WORDS)] for place in range(8)] for line in range(7, 7 + lines)]
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.writelines(" ".join(row) + "\n" for row in words)
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "cs.txt.xz", 120)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model and its tokenizer."""
    folder = tmp_path_factory.mktemp("mlm")
    tokenizer = demo_tokenizer()
    tokenizer.save_pretrained(folder)
    save_masked_lm(new_masked_lm(len(tokenizer), 16, 2, mask_id=50_337, seed=0), str(folder))
    return folder


@pytest.fixture(scope="module")
def corpus(text: Path, init: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Corpus:
    config = TextConfig.model_validate(
        {"source": str(text), "language": "cs", "cache_dir": str(tmp_path_factory.mktemp("cache"))}
    )
    return prepare_text(config, str(init))


@pytest.fixture
def make_job(text: Path, init: Path, corpus: Corpus, tmp_path: Path) -> MakeMlmJob:
    """Makes a job; keyword arguments are `train` keys."""

    def make(name: str, mask_share: float | None = None, **train: Any) -> MlmJob:
        tree = {
            "text": {"source": str(text), "language": "cs"},
            "mlm": {"width": 16, "layers": 2, "mask_share": mask_share},
            "train": {"precision": "float32", "steps": 4, "batch_size": 8, "lr": 1e-3, "eval_every": 1000, **train},
        }
        return MlmJob(
            config=MlmRunConfig.model_validate(tree),
            corpus=corpus,
            checkpoints=str(tmp_path / name / "checkpoints"),
            trained_ids=str(tmp_path / name / "trained_ids"),
            teacher_hash="",
            model=str(init),
        )

    return make


def losses(records: list[dict]) -> list[float]:
    return [record["loss"] for record in records if record["kind"] == "train"]


def test_workers_accumulation_and_zero_stage_do_not_change_training(make_job: MakeMlmJob) -> None:
    one = make_job("one", mask_share=0.2, zero_stage=0)
    accumulated = make_job("accumulated", mask_share=0.2, micro_batch_size=2)
    reference, by_accumulation = train_in_processes([one, accumulated], world=1)
    stages = [make_job(f"stage-{stage}", mask_share=0.2, zero_stage=stage) for stage in (1, 3)]
    expected = final_parameters(one)
    for job, records in zip([accumulated, *stages], [by_accumulation, *train_in_processes(stages, world=2)], strict=True):
        assert losses(records) == pytest.approx(losses(reference), rel=1e-5), job.checkpoints
        for name, value in final_parameters(job).items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-5, msg=name)


def test_one_position_of_each_segment_is_masked_by_default(make_job: MakeMlmJob) -> None:
    (records,) = train_in_processes([make_job("one", steps=2)], world=1)
    assert [record["tokens"] for record in records if record["kind"] == "train"] == [8, 8]


def test_training_goes_on_from_a_checkpoint_with_another_number_of_workers(make_job: MakeMlmJob) -> None:
    whole = make_job("whole", steps=STEPS, checkpoint_every=3)
    (reference,) = train_in_processes([whole], world=1)
    for path in list_checkpoints(whole.checkpoints):
        if step_of(path) > 3:
            delete_checkpoint(path)
    (resumed,) = train_in_processes([replace(whole)], world=2)
    assert [record["step"] for record in resumed if record["kind"] == "train"] == [4, 5, 6]
    assert losses(resumed) == pytest.approx(losses(reference)[3:], rel=1e-5)


@pytest.fixture(scope="module")
def trained(text: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """The folder of a run whose job was killed after a checkpoint and resumed with fewer workers."""
    folder = tmp_path_factory.mktemp("trained")
    tree = {
        "text": {"source": str(text), "language": "cs", "cache_dir": str(folder / "cache")},
        "mlm": {"width": 16, "layers": 2},
        "train": {"precision": "float32", "steps": STEPS, "batch_size": 8, "lr": 1e-2, "eval_every": 3, "checkpoint_every": 2},
        "output_dir": str(folder / "runs"),
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }
    config = folder / "mlm.yaml"
    config.write_text(yaml.safe_dump(tree))
    run = folder / "runs" / "mlm"
    process = start("train_mlm", config)
    while len(read_history(str(run / "history.jsonl")).train) < 2 or not list_checkpoints(str(run / "checkpoints")):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "metrics.json").exists()
    assert "pseudo-perplexity" in run_here("train_mlm", config, "--resume", "cluster.num_workers=1")
    return run


def test_a_killed_job_goes_on_and_leaves_a_complete_run(trained: Path, make_job: MakeMlmJob) -> None:
    history = read_history(str(trained / "history.jsonl"))
    assert recorded_steps(history, STEPS)[:2] == [1, 2]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["mlm"]["loss"] == pytest.approx(min(record["loss"] for record in history.eval))
    assert metrics["train"]["segments_seen"] == STEPS * 8
    assert "<html" in (trained / "report.html").read_text()
    assert load_masked_lm(str(trained / "mlm")).mask_id == 50_337
    assert not (trained / "mlm_init").exists()


def test_mlflow_has_the_numbers(trained: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{trained.parents[1]}/mlflow.db")
    data = client.get_run((trained / "mlflow_run_id").read_text()).data
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"train/loss", "train/segments_per_s", "eval/loss", "eval/top5_accuracy", "eval/pseudo_perplexity"} <= set(
        data.metrics
    )
    assert data.metrics["dev/loss"] == pytest.approx(metrics["mlm"]["loss"])
    assert data.params["mlm.width"] == "16"


def test_it_teaches_a_student(trained: Path, manifest: Path, tmp_path: Path) -> None:
    """A student of random weights, taught by labels and the masked language model alone; its words are those of the text."""
    tree = {
        "data": {"source": str(manifest), "cache_dir": str(tmp_path / "cache")},
        "student": {
            "init": "scratch",
            "freeze_encoder": False,
            "scratch": {"width": 16, "heads": 2, "ffn": 32, "encoder_layers": 1, "decoder_layers": 1},
        },
        "objective": {"recipe": "mlm_kd", "mlm": str(trained / "mlm"), "preset": "card", "lambda_lm": 0.25},
        "train": {"precision": "float32", "steps": 4, "batch_size": 8, "lr": 1e-3, "eval_every": 2},
        "evaluation": {"max_new_tokens": 8, "teacher_forced": True, "speed_utterances": 1},
        "output_dir": str(tmp_path / "runs"),
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db", "log_model": False},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    run_here("distill", config)
    run = tmp_path / "runs" / "distil"
    for record in read_history(str(run / "history.jsonl")).train:
        assert record["weights"] == {"ce": 0.25, "kl": 0.75}
        assert record["loss"] == pytest.approx(0.25 * record["terms"]["ce"] + 0.75 * record["terms"]["kl"], rel=1e-5)
    student = json.loads((run / "metrics.json").read_text())["student"]
    assert {"invalid_word_share", "loss", "teacher_forced_wer", "teacher_forced_cer"} <= set(student)
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert resolved["evaluation"]["vocabulary"] == str(trained / "mlm")


def test_a_model_of_another_vocabulary_is_refused_before_ray_starts(trained: Path, manifest: Path, tmp_path: Path) -> None:
    shape = json.loads((trained / "mlm" / "config.json").read_text())
    (tmp_path / "mlm").mkdir()
    (tmp_path / "mlm" / "config.json").write_text(json.dumps({**shape, "vocab_size": 51_866}))
    tree = {
        "data": {"source": str(manifest)},
        "student": {"init": "scratch"},
        "objective": {"recipe": "mlm_kd", "mlm": str(tmp_path / "mlm")},
        "train": {"steps": 1},
        "output_dir": str(tmp_path / "runs"),
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    output, _ = (process := start("distill", config)).communicate()
    assert process.returncode == 2
    assert output.startswith(f"raykd: objective.mlm.model: {tmp_path}/mlm has 51866 tokens and the student 51865")
    assert len(output.splitlines()) == 1
