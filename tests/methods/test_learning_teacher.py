"""OKD and real-time distillation: who learns from whom, against hand-computed gradients; what cannot learn is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from raykd.config import Config
from raykd.data.batches import collate
from raykd.data.corpus import Corpus, read_utterances
from raykd.data.text import LabelEncoder
from raykd.models.whisper import load_whisper
from raykd.parts.distribution import HeadDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.recipes.okd import OkdRecipe
from raykd.parts.recipes.real_time import RealTimeRecipe
from raykd.parts.recipes.recipe import named
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.targets.learning import LearningWhisper
from raykd.parts.targets.whisper import WhisperTarget
from raykd.parts.worker import Worker
from raykd.training.objective import objective
from tests.terms import NOW, active, labelled

N, D, V = 9, 4, 12


class Two:
    """Last states and output heads of a student and a teacher that learns."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(2)

        def leaf(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=draw, dtype=torch.float64))

        self.student_ND, self.student_VD, self.teacher_ND, self.teacher_VD = leaf(N, D), leaf(V, D), leaf(N, D), leaf(V, D)
        self.labels_N = torch.randint(0, V, (N,), generator=draw)

    def leaves(self) -> list[nn.Parameter]:
        return [self.student_ND, self.student_VD, self.teacher_ND, self.teacher_VD]

    def loss(self, recipe: Any, chunk: int | None = None) -> tuple[torch.Tensor, dict[str, float]]:
        terms = active(recipe.method().terms)
        teacher = Outputs(HeadDistribution(self.teacher_ND.detach(), self.teacher_VD), {}, self.teacher_ND)
        student = Outputs(hidden_ND=self.student_ND)
        loss, sums_K = objective(student, self.student_VD, labelled(self.labels_N), {"teacher": teacher}, terms, NOW, chunk)
        return loss, dict(zip((one.name for one in terms), sums_K.tolist(), strict=True))

    def logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.student_ND @ self.student_VD.T, self.teacher_ND @ self.teacher_VD.T


def kl(target_NV: torch.Tensor, student_NV: torch.Tensor, temperature: float) -> torch.Tensor:
    log_q_NV, log_p_NV = (target_NV.detach() / temperature).log_softmax(-1), (student_NV / temperature).log_softmax(-1)
    return temperature**2 * (log_q_NV.exp() * (log_q_NV - log_p_NV)).sum()


@pytest.mark.parametrize("chunk", [None, 4])
def test_okd_teaches_both(chunk: int | None) -> None:
    two = Two()
    loss, sums = two.loss(OkdRecipe(alpha=0.3, temperature=2.0), chunk)
    student_NV, teacher_NV = two.logits()
    expected = {
        "kl": kl(teacher_NV, student_NV, 2.0),
        "ce_teacher": functional.cross_entropy(teacher_NV, two.labels_N, reduction="sum"),
        "kl_teacher": kl(student_NV, teacher_NV, 2.0),
    }
    by_hand = expected["kl"] + 0.7 * expected["ce_teacher"] + 0.3 * expected["kl_teacher"]
    assert sums == pytest.approx({name: float(value) for name, value in expected.items()})
    torch.testing.assert_close(loss, by_hand)
    wanted = torch.autograd.grad(by_hand, two.leaves())
    for found, one in zip(torch.autograd.grad(loss, two.leaves()), wanted, strict=True):
        torch.testing.assert_close(found, one)


def test_in_real_time_the_teacher_gets_the_labels_alone() -> None:
    two = Two()
    loss, _ = two.loss(RealTimeRecipe(lambda_ce=0.4, lambda_kl=0.6))
    student_NV, teacher_NV = two.logits()
    alone = functional.cross_entropy(teacher_NV, two.labels_N, reduction="sum")
    wanted = torch.autograd.grad(alone, [two.teacher_ND, two.teacher_VD], retain_graph=True)
    own = 0.4 * functional.cross_entropy(student_NV, two.labels_N, reduction="sum") + 0.6 * kl(teacher_NV, student_NV, 2.0)
    wanted = (*torch.autograd.grad(own, [two.student_ND, two.student_VD]), *wanted)
    for found, one in zip(torch.autograd.grad(loss, two.leaves()), wanted, strict=True):
        torch.testing.assert_close(found, one)


def test_terms_are_told_apart_in_metrics() -> None:
    assert [term.name for term in named(OkdRecipe(lambda_ce=0.1).method().terms)] == ["ce", "kl", "ce_teacher", "kl_teacher"]


def config(**sections: Any) -> Config:
    return Config.model_validate({"data": {"source": "x.jsonl"}, "teacher": {"model": "x"}, "train": {"steps": 1}, **sections})


def test_the_configs_teacher_is_the_one_that_learns() -> None:
    teacher = config(objective={"recipe": "okd", "rank": 7}).method.targets["teacher"]
    assert teacher.model_dump(include={"kind", "model", "trains", "rank"}) == {
        "kind": "learning",
        "model": "x",
        "trains": "adapters",
        "rank": 7,
    }


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        (
            {"objective": "okd", "teacher": {"kind": "cached", "model": "x"}},
            "its teacher learns, so its answers",
        ),
        (
            {"objective": "real_time", "teacher": {"model": "x", "sharded": True}},
            "teacher.sharded: the teacher of real_time learns",
        ),
        ({"objective": {"terms": [{"kind": "kl", "of": "teacher"}]}}, "nothing diverges from itself"),
        ({"objective": {"terms": [{"kind": "kl", "target": "student"}]}}, "nothing diverges from itself"),
        ({"objective": {"terms": ["ce"], "targets": {"student": {"kind": "whisper", "model": "x"}}}}, "no target can be named"),
    ],
)
def test_what_cannot_learn_is_told(sections: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        config(**sections)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("section", "trained"),
    [
        ({"trains": "adapters", "rank": 3}, 2 * 2 * 2 * 3 * (32 + 32)),
        ({"trains": "adapters", "rank": 1, "modules": ("fc1",)}, 2 * (32 + 64)),
        ({"trains": "decoder"}, None),
        ({"trains": "all"}, None),
    ],
)
def test_what_learns_is_counted_and_nothing_else_trains(
    section: dict[str, Any], trained: int | None, tiny_whisper_dir: Path
) -> None:
    model = load_whisper(str(tiny_whisper_dir))
    learner = WhisperLearner(load_whisper(str(tiny_whisper_dir)))
    target = LearningWhisper(model=str(tiny_whisper_dir), **section)
    live = target.build(Worker(torch.device("cpu"), learner, LabelEncoder(str(tiny_whisper_dir)), lambda one: 0.0))
    assert live.learner is not None
    found = sum(one.numel() for one in live.learner.parameters() if one.requires_grad)
    assert target.trained_of(model) == found
    assert trained in (None, found)


def test_adapters_change_nothing_at_first(tiny_whisper_dir: Path, numbers: Corpus) -> None:
    batch = collate(read_utterances(numbers.path, numbers.index("train"), np.arange(3)), 500, numbers.pad_id)
    learner = WhisperLearner(load_whisper(str(tiny_whisper_dir)))
    on = Worker(torch.device("cpu"), learner, LabelEncoder(str(tiny_whisper_dir)), lambda one: 0.0)
    plain, learning = (kind(model=str(tiny_whisper_dir)).build(on) for kind in (WhisperTarget, LearningWhisper))
    said = [live.outputs(batch, frozenset(), {}).hidden_ND for live in (plain, learning)]
    assert said[0] is not None
    assert said[1] is not None
    torch.testing.assert_close(said[1], said[0])
    assert said[1].requires_grad
    assert not said[0].requires_grad
