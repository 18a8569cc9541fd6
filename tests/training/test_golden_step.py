"""The step against a training loop by hand: loss, every term, gradient norm and all parameters after five updates."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd.data.corpus import Corpus
from raykd.data.stream import local_steps
from raykd.models.demo import demo_tokenizer
from raykd.models.masked_lm import load_masked_lm, new_masked_lm, save_masked_lm
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.training.loop import Record
from raykd.training.student_job import StudentJob
from tests.jobs import MakeJob, job_maker
from tests.training import plain
from tests.training.plain import Plain
from tests.training.workers import final_parameters, train_in_processes

STEPS = 5
ROUNDING = 1e-5
"""Log-probabilities near -11 have float32 steps of 1e-6, and a divergence is multiplied by a temperature squared of up to 9."""


@dataclass(frozen=True)
class Method:
    """An objective, and the same by hand."""

    objective: dict[str, Any]
    losses: Callable[[Plain, Any], plain.Losses]
    more: dict[str, Any] = field(default_factory=dict)


ASKD = {
    **{"recipe": "askd", "decay": "linear", "rise": "linear", "trust": "sentence", "kappa": 2.0},
    "self_teacher": {"kind": "ema", "decay": 0.6},
}
EMA = {"terms": [{"kind": "ce"}, {"kind": "kl", "target": "self", "weight": 0.5}]}
METHODS = {
    "kd": Method({"recipe": "kd"}, plain.kd),
    "mlm_kd": Method({"recipe": "mlm_kd", "lambda_lm": 0.3}, plain.mlm_kd, {"mlm": True}),
    "ema": Method({**EMA, "targets": {"self": {"kind": "self", "update": {"kind": "ema", "decay": 0.6}}}}, plain.with_ema),
    "dr_kd": Method({"recipe": "dr_kd", "alpha": 0.8, "temperature": 3.0}, plain.dr_kd),
    "askd": Method(ASKD, plain.askd),
    "akd": Method({"recipe": "akd", "epsilon": 0.05}, plain.akd),
    "distilwhisper": Method({"recipe": "distilwhisper"}, plain.distilwhisper, {"experts": True}),
    "okd": Method({"recipe": "okd", "alpha": 0.3, "rank": 4}, plain.okd),
    "real_time": Method({"recipe": "real_time"}, plain.real_time),
}
EXPERTS = {"kind": "experts", "languages": ["pl"], "gate_width": 8, **dict.fromkeys(("gate_dropout", "expert_dropout"), 0.0)}
"""Without what is drawn: workers draw each their own."""
Case = tuple[str, dict[str, Any]]
"""Method, and what is set differently."""
ONE_WORKER: list[Case] = [
    *[(name, {}) for name in METHODS],
    ("kd", {"micro_batch_size": 4}),
    ("kd", {"clip_norm": 0.0}),
    ("kd", {"freeze_encoder": False}),
    ("kd", {"vocabulary": {"kind": "from_corpus", "words": 100}}),
    ("mlm_kd", {"vocabulary": {"kind": "from_corpus", "words": 100}}),
    ("kd", {"zero_stage": 3, "micro_batch_size": 4}),
    ("ema", {"zero_stage": 3}),
    ("distilwhisper", {"micro_batch_size": 4}),
]
TWO_WORKERS: list[Case] = [
    ("kd", {"zero_stage": 0}),
    ("kd", {"zero_stage": 1, "micro_batch_size": 2}),
    ("kd", {"zero_stage": 2, "micro_batch_size": 2, "freeze_encoder": False}),
    ("kd", {"zero_stage": 3, "micro_batch_size": 2, "clip_norm": 0.0}),
    ("mlm_kd", {"zero_stage": 2}),
    ("ema", {"zero_stage": 1}),
    ("ema", {"zero_stage": 3, "micro_batch_size": 2}),
    ("dr_kd", {"zero_stage": 3, "freeze_encoder": False}),
    ("akd", {"zero_stage": 2, "micro_batch_size": 2}),
    ("akd", {"zero_stage": 3}),
    ("distilwhisper", {"zero_stage": 2, "micro_batch_size": 2}),
    ("distilwhisper", {"zero_stage": 3}),
    ("okd", {"zero_stage": 2, "micro_batch_size": 2}),
    ("okd", {"zero_stage": 3}),
    ("real_time", {"zero_stage": 1}),
    ("real_time", {"zero_stage": 3, "micro_batch_size": 2}),
]


@pytest.fixture(scope="session")
def mlm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny masked language model of Whisper's tokens with random weights."""
    folder = tmp_path_factory.mktemp("mlm")
    tokenizer = demo_tokenizer()
    tokenizer.save_pretrained(folder)
    save_masked_lm(new_masked_lm(len(tokenizer), 8, 2, tokenizer.get_vocab()["<|uz|>"], 0), str(folder))
    return folder


@pytest.fixture(scope="session")
def sharp_dir(tiny_whisper_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Whisper with larger weights in its decoder: teacher and student then differ, and are sure of their guesses."""
    model = load_whisper(str(tiny_whisper_dir))
    with torch.no_grad():
        for parameter in model.model.decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    folder = tmp_path_factory.mktemp("sharp")
    save_whisper(model, load_processor(str(tiny_whisper_dir)), str(folder))
    return folder


@pytest.fixture
def make_sharp_job(numbers: Corpus, sharp_dir: Path, tmp_path: Path) -> MakeJob:
    return job_maker("unused.jsonl", numbers, sharp_dir, tmp_path)


def job_of(case: Case, make_job: MakeJob, mlm_dir: Path, teacher: Path, number: int) -> StudentJob:
    name, settings = case
    method, train = METHODS[name], dict(settings)
    student: dict[str, Any] = {name: train.pop(name) for name in ("freeze_encoder", "vocabulary") if name in train}
    if "experts" in method.more:
        student = {**EXPERTS, "model": str(teacher), "noise": 0.0, "skip": 0.0}
    objective = {**method.objective, **({"mlm": str(mlm_dir)} if "mlm" in method.more else {})}
    usual = {"steps": STEPS, "warmup_steps": 2, "weight_decay": 0.1, "clip_norm": 0.5, "zero_stage": 0}
    job = make_job(f"{name}-{number}", student=student, objective=objective, **{**usual, **train})
    return replace(job, trained_ids=None)


_done: dict[tuple[str, bool, float, bool], tuple[Plain, dict[str, torch.Tensor]]] = {}
"""Accumulation, workers and ZeRO stages are nothing to the loop by hand."""


def by_hand(job: StudentJob, name: str, mlm_dir: Path, teacher: str) -> tuple[Plain, dict[str, torch.Tensor]]:
    key = (name, job.config.student.freeze_encoder, job.config.train.clip_norm, job.kept_tokens is None)
    if key not in _done:
        _done[key] = _by_hand(job, name, mlm_dir, teacher)
    return _done[key]


def _by_hand(job: StudentJob, name: str, mlm_dir: Path, teacher: str) -> tuple[Plain, dict[str, torch.Tensor]]:
    def rate(step: int) -> float:
        return 1e-3 * ((step + 1) / 2 if step < 2 else (STEPS - step) / (STEPS - 2))

    order = job.order()
    whole = [step.micro[0] for step in local_steps(job.reading(order, 0, 1, 1), range(STEPS))]
    train = job.config.train
    loop = Plain(
        student=plain.load_experts(job.student, "pl", 8)
        if name == "distilwhisper"
        else plain.load(job.student, job.config.student.freeze_encoder),
        teacher=teacher_by_hand(job, name, teacher),
        losses=METHODS[name].losses,
        lr=rate,
        clip=train.clip_norm,
        weight_decay=0.1,
        mlm=load_masked_lm(str(mlm_dir)).double().eval() if name == "mlm_kd" else None,
        kept=None if job.kept_tokens is None else torch.tensor(job.kept_tokens),
        ema=0.6 if name in {"ema", "askd"} else None,
    )
    return loop, loop.train(whole)


def teacher_by_hand(job: StudentJob, name: str, folder: str) -> Any:
    model = plain.load(folder)
    if name == "okd":
        return plain.with_adapters(model, rank=4)
    return model if job.kept_tokens is None else plain.Kept(model, job.kept_tokens)


def assert_same(records: list[Record], job: StudentJob, loop: Plain, expected: dict[str, torch.Tensor]) -> None:
    trained = [record for record in records if record["kind"] == "train"]
    assert len(trained) == STEPS
    for record, norm, terms in zip(trained, loop.norms, loop.records, strict=True):
        assert {"loss": record["loss"], **record["terms"]} == pytest.approx(terms, rel=1e-5, abs=ROUNDING)
        assert record["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert record["precision"] == "float32"
    found = final_parameters(job)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=0, atol=1e-5, msg=name)


def check(cases: list[Case], world: int, make_job: MakeJob, mlm_dir: Path, teacher: Path) -> None:
    jobs = [job_of(case, make_job, mlm_dir, teacher, number) for number, case in enumerate(cases)]
    with ThreadPoolExecutor(1) as aside:
        trained = aside.submit(train_in_processes, jobs, world)
        loops = [by_hand(job, name, mlm_dir, str(teacher)) for (name, _), job in zip(cases, jobs, strict=True)]
    for case, job, records, (loop, expected) in zip(cases, jobs, trained.result(), loops, strict=True):
        try:
            assert_same(records, job, loop, expected)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error


def test_one_worker(make_sharp_job: MakeJob, mlm_dir: Path, sharp_dir: Path) -> None:
    check(ONE_WORKER, 1, make_sharp_job, mlm_dir, sharp_dir)


def test_two_workers(make_sharp_job: MakeJob, mlm_dir: Path, sharp_dir: Path) -> None:
    check(TWO_WORKERS, 2, make_sharp_job, mlm_dir, sharp_dir)
