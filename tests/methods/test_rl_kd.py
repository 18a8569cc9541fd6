"""Reinforced selection: choices, rewards and policy gradients against a plain loop; who is not taken is not run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from raykd.config import Config
from raykd.data.batches import Batch, collate
from raykd.data.corpus import Corpus, read_utterances
from raykd.data.text import LabelEncoder
from raykd.models.whisper import load_whisper
from raykd.parts.clock import Clock
from raykd.parts.distribution import LogitsDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.recipes.rl_kd import Chosen, RlKdRecipe, SelectedKl, Share
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.updates.selection import SELECTED, Selection
from raykd.parts.worker import Worker
from raykd.training.objective import objective
from tests.terms import NOW, active

TEACHERS = ("teacher", "other")


@pytest.fixture
def batch(numbers: Corpus) -> Batch:
    return collate(read_utterances(numbers.path, numbers.index("train"), np.arange(6)), 500, numbers.pad_id)


@pytest.fixture
def worker(tiny_whisper_dir: Path) -> Worker:
    model = load_whisper(str(tiny_whisper_dir))
    model.model.encoder.requires_grad_(False)
    return Worker(torch.device("cpu"), WhisperLearner(model), LabelEncoder(str(tiny_whisper_dir)), lambda learner: 0.0)


def test_all_teach_alike_until_the_policy_begins(batch: Batch, worker: Worker) -> None:
    live = Selection(teachers=TEACHERS, warm_up=0.5).build(worker)
    live.before_step(batch, Clock(4, 10))
    assert {name: set(weight_B.tolist()) for name, weight_B in batch.memo[SELECTED].items()} == {key: {0.5} for key in TEACHERS}


def test_the_policy_follows_its_gradient_one_step_late(batch: Batch, worker: Worker) -> None:
    live = Selection(teachers=TEACHERS, warm_up=0.0, policy_lr=0.5, memory=0.8).build(worker)
    policy = np.zeros((2, 33))
    average, before = None, np.zeros_like(policy)
    states_BSD = worker.student.states(batch).detach().double()  # type: ignore[operator]
    about = []
    for row, frames in enumerate(batch.frames):
        mean_D = states_BSD[row, : (frames + 1) // 2].sum(0)
        about.append([*(mean_D / mean_D.norm()).tolist(), 1.0])
    taken_ever = set()
    for step, loss in enumerate((5.0, 3.0, 4.0, 2.0)):
        clock = Clock(step, 10, seed=3)
        live.before_step(batch, clock)
        gradient = np.zeros_like(policy)
        for row, (name, x) in enumerate(zip(batch.ids, about, strict=True)):
            p = 1 / (1 + np.exp(-policy @ x))
            taken = clock.draws("teachers", name).random(2) < p
            taken_ever.add(tuple(taken))
            weights = [float(batch.memo[SELECTED][teacher][row]) for teacher in TEACHERS]
            assert weights == [one / max(1, sum(taken)) for one in taken]
            gradient += np.outer(taken - p, x) / len(batch.ids)
        live.after_update(clock, {"ce": loss, "kl_teacher": 9.0})
        if average is not None:
            policy = policy + 0.5 * (-loss - average) * before
        average = -loss if average is None else 0.8 * average + 0.2 * -loss
        before = gradient
        np.testing.assert_allclose(live.policy_KE.numpy(), policy, rtol=1e-6, atol=1e-9)
        other = Selection(teachers=TEACHERS, warm_up=0.0, policy_lr=0.5, memory=0.8).build(worker)
        other.restore({name: value.clone() for name, value in live.state().items()})
        live = other
    assert np.abs(policy).max() > 0
    assert {(True, False), (False, True), (False, False)} <= taken_ever


def test_the_second_reward_counts_distillation_too(worker: Worker) -> None:
    live = Selection(teachers=TEACHERS, reward="ce_kd").build(worker)
    live.after_update(NOW, {"ce": 2.0, "kl_teacher": 0.5, "kl_other": 0.25, "chosen_other": 1.0})
    assert float(live.state()["average"]) == -2.75


def test_learned_weights_are_those_of_a_mixture_that_explains_the_labels(worker: Worker) -> None:
    draw = torch.Generator().manual_seed(0)
    label_N = torch.randint(0, 5, (400,), generator=draw)
    log_p = {
        "teacher": torch.randn(400, 5, generator=draw, dtype=torch.float64).log_softmax(-1),
        "other": (torch.randn(400, 5, generator=draw, dtype=torch.float64) + functional.one_hot(label_N, 5)).log_softmax(-1),
    }
    live = Selection(teachers=TEACHERS, choose="learned", warm_up=0.0, policy_lr=1.0).build(worker)
    for step in range(200):
        memo = {SELECTED: {name: weight.repeat(1) for name, weight in zip(TEACHERS, live.weight_K, strict=True)}}
        batch = SimpleNamespace(memo=memo, utterance_N=torch.zeros(400, dtype=torch.int64))
        at: Any = SimpleNamespace(
            batch=batch,
            tokens=slice(0, 400),
            dtype=torch.float64,
            of_labels=lambda name: log_p[name].gather(1, label_N[:, None])[:, 0],
        )
        shares = {f"share_{name}": float(Share(teacher=name, teachers=TEACHERS).values(at).mean()) for name in TEACHERS}
        assert sum(shares.values()) == pytest.approx(1)
        live.after_update(Clock(step, 1000), shares)

    def likelihood(weight: float) -> float:
        both = [log_p[name].gather(1, label_N[:, None])[:, 0].exp() for name in TEACHERS]
        return float((weight * both[0] + (1 - weight) * both[1]).log().mean())

    best = max(np.linspace(0.001, 0.999, 999), key=likelihood)
    assert float(live.weight_K[0]) == pytest.approx(best, abs=2e-3)


@pytest.mark.slow
def test_the_loss_is_the_mean_over_the_teachers_that_were_taken(batch: Batch) -> None:
    draw = torch.Generator().manual_seed(4)
    tokens, width, vocabulary = len(batch.valid_N), 3, 51_865
    hidden_ND = torch.randn(tokens, width, generator=draw, dtype=torch.float64, requires_grad=True)
    weight_VD = torch.randn(vocabulary, width, generator=draw, dtype=torch.float64)
    teachers = {name: torch.randn(tokens, vocabulary, generator=draw, dtype=torch.float64) for name in TEACHERS}
    taken = {"teacher": torch.tensor([1.0, 0.0, 0.5, 0.0, 0.5, 1.0]), "other": torch.tensor([0.0, 1.0, 0.5, 0.0, 0.5, 0.0])}
    batch.memo[SELECTED] = {name: weight_B.double() for name, weight_B in taken.items()}
    terms = active(RlKdRecipe(teachers={"other": {"kind": "whisper", "model": "x"}}, alpha=0.4).method().terms)
    said = {name: Outputs(LogitsDistribution(logits_NV)) for name, logits_NV in teachers.items()}
    loss, sums_K = objective(Outputs(hidden_ND=hidden_ND), weight_VD, batch, said, terms, NOW, 16)
    student_NV = hidden_ND @ weight_VD.T
    log_p_NV = (student_NV / 2).log_softmax(-1)
    by_hand = 0.6 * functional.cross_entropy(student_NV, batch.labels_N, reduction="sum")
    for row in range(6):
        of = [name for name in TEACHERS if taken[name][row] > 0]
        mine_N = batch.utterance_N == row
        for name in of:
            log_q_NV = (teachers[name][mine_N] / 2).log_softmax(-1)
            by_hand = by_hand + 0.4 * 4 * (log_q_NV.exp() * (log_q_NV - log_p_NV[mine_N])).sum() / len(of)
    torch.testing.assert_close(loss, by_hand)
    (found,), (wanted,) = torch.autograd.grad(loss, hidden_ND), torch.autograd.grad(by_hand, hidden_ND)
    torch.testing.assert_close(found, wanted)
    metrics = dict(zip((one.name for one in terms), sums_K.tolist(), strict=True))
    assert (metrics["chosen_teacher"], metrics["chosen_other"]) == (4, 3)


def test_a_teacher_that_no_utterance_takes_is_not_run(batch: Batch) -> None:
    batch.memo[SELECTED] = {"teacher": torch.tensor([0.0, 1, 0, 0, 0, 0]), "other": torch.zeros(6)}
    assert not SelectedKl(target="teacher").silent(batch)
    assert SelectedKl(target="other").silent(batch)
    assert Chosen(teacher="other").runs() == ()


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ({"teachers": {}}, "there is only one teacher to choose from"),
        ({"teachers": {"teacher": {"kind": "whisper", "model": "x"}}}, "is the config's own teacher"),
        ({"teachers": {"b": {"kind": "whisper", "model": "x", "sharded": True}}}, "none can be sharded"),
        ({}, "teachers"),
    ],
)
def test_what_cannot_choose_is_told(objective: dict[str, Any], told: str) -> None:
    sections = {"data": {"source": "x.jsonl"}, "teacher": {"model": "x"}, "train": {"steps": 1}}
    with pytest.raises(ValueError, match=r".") as raised:
        Config.model_validate({**sections, "objective": {"recipe": "rl_kd", **objective}})
    assert told in str(raised.value)
