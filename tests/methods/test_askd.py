"""ASKD: its weights over training, trust against a float64 reference, and a teacher that goes when it is not needed."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.distribution import LogitsDistribution, TopKDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.recipes.askd import AskdRecipe, RecentLead, TeacherLead, TrustedKl
from raykd.parts.recipes.recipe import Recipe
from raykd.parts.updates.self_teacher import SelfTeacher, Snapshot
from raykd.training.objective import ActiveTerm, objective
from tests.terms import NOW, at_work, labelled, loss_and_sums, saying

STEPS = 10
LABELS_BU = torch.tensor([[1, 2, 3, -100], [4, -100, -100, -100], [0, 5, 6, 2]])
V, D = 7, 5


def recipe(**fields: Any) -> AskdRecipe:
    made = TypeAdapter(Recipe).validate_python({"recipe": "askd", **fields})
    assert isinstance(made, AskdRecipe)
    return made


def weights(name: str, **fields: Any) -> list[float]:
    """Of a term at each tenth of training."""
    (term,) = [one for one in recipe(**fields).method().terms if one.name == name]
    return [round(Clock(step, STEPS).at(term.weight), 4) for step in range(STEPS)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"decay": "linear", "switch": 0.5}, [1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0, 0]),
        ({"decay": "linear", "switch": 1.0, "alpha_end": 0.5, "rise": "linear"}, [1 - 0.05 * step for step in range(10)]),
        ({"decay": "step", "switch": 0.3, "alpha_end": 0.1}, [1, 1, 1, *[0.1] * 7]),
        ({"decay": "constant", "alpha": 2.0}, [2] * 10),
        ({"decay": "cosine", "switch": 0.4}, [1, 0.8536, 0.5, 0.1464, *[0] * 6]),
        ({"decay": "exponential", "switch": 0.4}, [1, 0.3162, 0.1, 0.0316, *[0] * 6]),
        ({"decay": "exponential", "switch": 0.4, "alpha_end": 0.01}, [1, 0.3162, 0.1, 0.0316, *[0.01] * 6]),
    ],
)
def test_the_teachers_weight(fields: dict[str, Any], expected: list[float]) -> None:
    assert weights("kl_teacher", **fields) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"switch": 0.6}, [*[0] * 6, *[0.5] * 4]),
        ({"switch": 0.5, "rise": "linear", "beta": 1.0}, [0, 0.2, 0.4, 0.6, 0.8, *[1] * 5]),
        ({"switch": 0.4, "rise": "cosine", "beta": 1.0}, [0, 0.1464, 0.5, 0.8536, *[1] * 6]),
    ],
)
def test_the_self_teachers_weight(fields: dict[str, Any], expected: list[float]) -> None:
    assert weights("kl_self", **fields) == pytest.approx(expected, abs=1e-4)


def test_a_snapshot_is_taken_at_the_switch_unless_it_says_when() -> None:
    def update(**fields: Any) -> Any:
        target = recipe(**fields).method().targets["self"]
        assert isinstance(target, SelfTeacher)
        return target.update

    assert update(switch=0.3) == Snapshot(choose="best", at=0.3)
    assert update(switch=0.3, self_teacher={"kind": "snapshot", "every_epochs": 2}).every_epochs == 2
    assert update(switch=0.3, self_teacher={"kind": "snapshot", "at": 0.2}).at == 0.2
    assert update(self_teacher="previous_epoch").kind == "previous_epoch"


def test_without_beta_there_is_no_copy_of_the_student() -> None:
    method = recipe(beta=0).method()
    assert [term.name for term in method.terms] == [None, "kl_teacher"]
    assert not method.targets


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 0.2, "alpha_end": 0.5}, r"alpha_end \(0\.5\) must be at most alpha"),
        ({"switch": 1}, "the self-teacher never comes; take rise: linear"),
        ({"self_teacher": "sgd"}, "self_teacher"),
        ({"trust": "word"}, "trust"),
    ],
)
def test_the_impossible_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(**fields)


def example(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """hidden_ND and weight_VD of a student, and a teacher's logits_NV."""
    random = torch.Generator().manual_seed(seed)
    tokens = int((LABELS_BU != -100).sum())
    hidden_ND = torch.randn(tokens, D, generator=random, dtype=torch.float64, requires_grad=True)
    weight_VD = torch.randn(V, D, generator=random, dtype=torch.float64, requires_grad=True)
    return hidden_ND, weight_VD, 2 * torch.randn(tokens, V, generator=random, dtype=torch.float64)


def trusted(hidden_ND: Tensor, weight_VD: Tensor, teacher_NV: Tensor, by_sentence: bool) -> tuple[Tensor, Tensor]:
    """Sum of trust · KL · 4 at temperature 2 and kappa 1.5, and of the lead, in plain PyTorch."""
    logits_NV, labels_N = hidden_ND @ weight_VD.T, LABELS_BU[LABELS_BU != -100]
    lead_N = (teacher_NV.log_softmax(-1) - logits_NV.detach().log_softmax(-1)).gather(1, labels_N[:, None])[:, 0]
    leads_N = lead_N.clone()
    if by_sentence:
        begin = 0
        for length in (3, 1, 4):
            leads_N[begin : begin + length] = lead_N[begin : begin + length].mean()
            begin += length
    q_NV, log_p_NV = (teacher_NV / 2).softmax(-1), (logits_NV / 2).log_softmax(-1)
    kl_N = (q_NV * (q_NV.log() - log_p_NV)).sum(-1)
    return ((1.5 * leads_N).sigmoid() * 4 * kl_N).sum(), lead_N.sum()


@pytest.mark.parametrize("trust", ["token", "sentence"])
@pytest.mark.parametrize("chunk_tokens", [2, 100])
def test_trust_against_plain_pytorch(trust: Any, chunk_tokens: int) -> None:
    hidden_ND, weight_VD, teacher_NV = example()
    kl = TrustedKl(trust=trust, kappa=1.5, student_temperature=2.0, target_temperature=2.0)
    targets = {"teacher": LogitsDistribution(teacher_NV)}
    batch = labelled(LABELS_BU)
    loss, _ = loss_and_sums(hidden_ND, weight_VD, batch, targets, [kl], chunk_tokens)
    found = torch.autograd.grad(loss, (hidden_ND, weight_VD))
    expected, lead = trusted(hidden_ND, weight_VD, teacher_NV, trust == "sentence")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (hidden_ND, weight_VD)))
    measured = ActiveTerm(TeacherLead(name="teacher_lead"), weight=0.0)
    student = Outputs(hidden_ND=hidden_ND)
    loss, (sums_K) = objective(student, weight_VD, batch, saying(targets), [measured], NOW, chunk_tokens)
    torch.testing.assert_close(sums_K[0], lead)
    assert float(loss.detach()) == 0


def test_trust_in_recent_batches_follows_their_mean() -> None:
    hidden_ND, weight_VD, teacher_NV = example(1)
    kl = TrustedKl(trust="batches", kappa=2.0, memory=0.5)
    live = kl.build(None)  # type: ignore[arg-type]
    assert isinstance(live, RecentLead)
    for mean in (-1.0, 3.0):
        live.after_update(NOW, {"teacher_lead": mean, "ce": 1.0})
    live.after_update(Clock(3, STEPS), {"ce": 1.0})  # the teacher was not asked
    again = kl.build(None)  # type: ignore[arg-type]
    assert isinstance(again, RecentLead)
    again.restore(live.state())
    plainly = {"teacher": LogitsDistribution(teacher_NV)}
    targets = saying(plainly)
    lead = 0.5 * (0.5 * 0 + 0.5 * -1) + 0.5 * 3
    by_token, _ = loss_and_sums(
        hidden_ND, weight_VD, labelled(LABELS_BU), {"teacher": LogitsDistribution(teacher_NV)}, [TrustedKl()]
    )
    for one in (live, again):
        term = ActiveTerm(kl, 1.0, live=one)
        loss, _ = objective(Outputs(hidden_ND=hidden_ND), weight_VD, labelled(LABELS_BU), targets, [term], NOW)
        q_NV, log_p_NV = teacher_NV.softmax(-1), (hidden_ND @ weight_VD.T).log_softmax(-1)
        whole = (q_NV * (q_NV.log() - log_p_NV)).sum()
        torch.testing.assert_close(loss, torch.tensor(2 * lead).double().sigmoid() * whole)
    assert not torch.isclose(by_token, loss)


def test_trust_in_batches_wants_what_it_follows() -> None:
    live = TrustedKl(trust="batches", name="trusted_kl").build(None)  # type: ignore[arg-type]
    assert isinstance(live, RecentLead)
    live.after_update(NOW, {"ce": 1.0})  # neither counts yet
    with pytest.raises(UserError, match=r"follows a term \{kind: teacher_lead, name: teacher_lead\}"):
        live.after_update(NOW, {"trusted_kl": 1.0})


def test_trust_in_answers_from_a_cache() -> None:
    """Of the likeliest tokens and a tail: a label among them has its own probability, another an even share of the tail."""
    hidden_ND, weight_VD, teacher_NV = example(2)
    log_NV = teacher_NV.log_softmax(-1)
    top = log_NV.topk(3)
    tail_N = (1 - top.values.exp().sum(-1)).log()
    kept = TopKDistribution(top.indices, top.values, {1.0: tail_N}, V)
    _, sums = loss_and_sums(hidden_ND, weight_VD, labelled(LABELS_BU), {"teacher": kept}, [TeacherLead()])
    labels_N = LABELS_BU[LABELS_BU != -100]
    of_teacher = [
        float(log_NV[n, label]) if label in top.indices[n] else float(tail_N[n]) - float(torch.tensor(4.0).log())
        for n, label in enumerate(labels_N.tolist())
    ]
    of_student_N = (hidden_ND @ weight_VD.T).log_softmax(-1).gather(1, labels_N[:, None])[:, 0]
    assert float(sums["teacher_lead"]) == pytest.approx(sum(of_teacher) - float(of_student_N.detach().sum()), rel=1e-5)
    assert TrustedKl(target_temperature=2.0).target_temperatures() == (2.0, 1.0)


def test_the_teacher_goes_when_its_weight_is_zero() -> None:
    fields = {"switch": 0.5, "beta": 0, "trust": "token"}
    live = at_work(recipe(**fields).method(), Clock(0, STEPS))
    for step in range(STEPS):
        assert live.free_unneeded(Clock(step, STEPS)) == (["teacher"] if step == 5 else [])
        names = [active.name for active in live.active(Clock(step, STEPS))]
        assert names == (["ce", "kl_teacher", "teacher_lead"] if step < 5 else ["ce"])
