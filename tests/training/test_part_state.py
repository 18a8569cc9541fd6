"""Parts that remember, learn or are done: exact over a resume, whatever the number of workers and the ZeRO stage."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raykd.evaluation.recogniser import lay_over
from raykd.models.whisper import load_whisper
from raykd.training.checkpoint import TRAINABLE, newest_good, read_parts
from tests.jobs import MakeJob
from tests.training import own_parts  # noqa: F401 (makes them known)
from tests.training.test_training import assert_same_parameters, losses, resumed_at
from tests.training.workers import final_parameters, train_in_processes

SELF: dict[str, Any] = {"terms": [{"kind": "ce"}, {"kind": "kl", "target": "self"}]}
METHODS: dict[str, dict[str, Any]] = {
    "ema": {**SELF, "targets": {"self": {"kind": "self", "update": {"kind": "ema", "decay": 0.7}}}},
    "best": {**SELF, "targets": {"self": {"kind": "self", "update": {"kind": "snapshot", "choose": "best", "at": 0.5}}}},
    "imitkd": {"recipe": "imitkd", "beta": 0.5, "top_k": 3},
    "askd": {"recipe": "askd", "trust": "batches", "switch": 0.9, "rise": "linear", "self_teacher": "previous_epoch"},
    "distilwhisper": {"recipe": "distilwhisper"},
    "okd": {"recipe": "okd", "rank": 2},
    "real_time": {"recipe": "real_time"},
    "homodistil": {"recipe": "homodistil", "begin": 0.0, "end": 0.8, "every": 2, "uncertainty": True},
    "cdd": {"recipe": "cdd", "begin": 0.0, "end": 0.8, "every": 1},
    "rl_kd": {"recipe": "rl_kd", "warm_up": 0.2},
    "rl_kd_learned": {"recipe": "rl_kd", "warm_up": 0.2, "choose": "learned"},
    "counting": {"terms": [{"kind": "ce"}, {"kind": "counting", "weight": 0.1}]},
    "hint": {"terms": [{"kind": "ce"}, {"kind": "hint"}]},
}
WITHOUT_DRAWS = dict.fromkeys(("gate_dropout", "expert_dropout", "noise", "skip"), 0.0)


def test_a_method_goes_on_with_what_it_had(make_job: MakeJob, tiny_whisper_dir: Path, lively_dir: Path) -> None:
    """Six steps on one worker; then the same on two workers under each ZeRO stage, from the checkpoint of step 3."""
    usual = {"steps": 6, "checkpoint_every": 3, "eval_every": 1000}
    students = {
        "distilwhisper": {"kind": "experts", "model": str(tiny_whisper_dir), "languages": ["pl"], **WITHOUT_DRAWS},
        "homodistil": {"kind": "shrinking", "decoder_ffn": 0.5, "encoder_ffn": 20, "heads": 1, "freeze_encoder": False},
        "cdd": {"kind": "shrinking", "decoder_ffn": 0.25, "compactors": True},
    }
    other = {"teachers": {"other": {"kind": "whisper", "model": str(lively_dir), "dtype": "float32"}}}
    jobs = [
        make_job(name, objective={**objective, **(other if "rl_kd" in name else {})}, student=students.get(name), **usual)
        for name, objective in METHODS.items()
    ]
    whole = train_in_processes(jobs, world=1)
    expected = [final_parameters(job) for job in jobs]
    stages = (3, 1, 3, 2, 2, 3, 2, 3, 2, 3, 1, 2, 3)
    cut = [
        replace(resumed_at(job, 3), config=job.config.model_copy(update={"train": with_stage(job, stage)}))
        for job, stage in zip(jobs, stages, strict=True)
    ]
    resumed = train_in_processes(cut, world=2)
    for job, reference, records, parameters in zip(cut, whole, resumed, expected, strict=True):
        assert losses(records) == pytest.approx(losses(reference)[3:], rel=2e-5, abs=1e-6), job.config.objective
        assert_same_parameters(job, parameters)


def with_stage(job: Any, stage: int) -> Any:
    return job.config.train.model_copy(update={"zero_stage": stage})


def test_what_a_term_trains_is_in_the_checkpoint_and_not_in_the_student(make_job: MakeJob) -> None:
    job = make_job("hint", objective=METHODS["hint"], steps=2)
    (records,) = train_in_processes([job], world=2)
    assert [record["terms"]["hint"] > 0 for record in records if record["kind"] == "train"] == [True, True]
    path = newest_good(job.checkpoints, print)
    assert path is not None
    parts = read_parts(path)
    (name,) = parts
    assert "terms.hint" in name
    assert not any("hint" in name for name in final_parameters(job))
    assert not (parts[name].diag() == 1).all(), "it has learned"


def test_a_target_that_nothing_asks_for_any_more_is_freed(make_job: MakeJob) -> None:
    fades = {"kind": "linear", "start": 1.0, "end": 0.0, "until": 0.5}
    objective = {"terms": [{"kind": "ce"}, {"kind": "kl", "weight": fades}]}
    job = make_job("fades", objective=objective, steps=6, checkpoint_every=4)
    (records,) = train_in_processes([job], world=2)
    texts = [record["text"] for record in records if record["kind"] == "event"]
    assert texts == ["target `teacher` is not needed any more; it is not run from here on"]
    terms = [set(record["terms"]) for record in records if record["kind"] == "train"]
    assert terms == [{"ce", "kl"}] * 3 + [{"ce"}] * 3
    expected = final_parameters(job)
    (resumed,) = train_in_processes([resumed_at(job, 4)], world=2)
    assert losses(resumed) == pytest.approx(losses(records)[4:], rel=1e-6)
    assert_same_parameters(job, expected)


def test_a_student_that_has_shrunk_is_given_away_at_its_size(make_job: MakeJob) -> None:
    sizes = {"kind": "shrinking", "decoder_ffn": 0.5, "encoder_ffn": 20, "heads": 1, "freeze_encoder": False}
    objective = {"recipe": "homodistil", "begin": 0.0, "end": 0.7, "every": 2}
    job = make_job("shrunk", objective=objective, student=sizes, steps=6)
    train_in_processes([job], world=2)
    trained = load_whisper(job.student)
    newest = newest_good(job.checkpoints, print)
    assert newest is not None
    lay_over(trained, f"{newest}/{TRAINABLE}")
    plain = job.config.student.finished(trained)
    dims = plain.config
    assert (dims.d_model, dims.decoder_attention_heads, dims.encoder_ffn_dim, dims.decoder_ffn_dim) == (16, 1, 20, 32)
    assert sum(one.numel() for one in plain.parameters()) < 0.55 * sum(one.numel() for one in trained.parameters())
