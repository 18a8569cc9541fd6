"""Terms that do not know their gradient: what they give in chunks, by automatic differentiation, is the plain gradient."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raykd.data.batches import Batch, Contexts
from raykd.parts.clock import Clock
from raykd.parts.distribution import LogitsDistribution
from raykd.parts.outputs import HIDDEN_STATES, Outputs
from raykd.parts.part import Live
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.js import Js
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.reverse_kl import ReverseKl
from raykd.parts.terms.term import Chunk, ClosedForm, OutputTerm, Term, TokenTerm
from raykd.training.objective import ActiveTerm, objective
from raykd.training.step import wanted_by
from tests.terms import NOW, active, labelled, loss_and_sums

D, V = 5, 17
LABELS_BU = torch.tensor(
    [[3, 1, 16, 0, -100, -100], [2, 2, 9, 8, 7, 5], [4, -100, -100, -100, -100, -100], [6, 7, 0, 1, 2, -100]]
)
SAMPLED_B = torch.tensor([False, True, True, False])
BATCH = labelled(LABELS_BU, SAMPLED_B)
N = BATCH.n_valid()
TOKENS_OF_CONTEXT: dict[Contexts, Tensor] = {"all": torch.arange(N), "gold": torch.tensor([0, 1, 2, 3, *range(11, 16)])}
TOKENS_OF_CONTEXT["sampled"] = torch.tensor([token for token in range(N) if token not in TOKENS_OF_CONTEXT["gold"]])


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HIDDEN_ND, WEIGHT_VD, TARGET_NV = normal(N, D, seed=0), normal(V, D, seed=1), normal(N, V, seed=2) * 2
WEIGHTS_N = normal(N, seed=3).abs()
TARGETS = {"teacher": LogitsDistribution(TARGET_NV)}


class PlainKl(TokenTerm):
    """KL without its gradient."""

    kind: Literal["plain_kl"] = "plain_kl"

    def targets(self) -> tuple[str, ...]:
        return ("teacher",)

    def values(self, at: Chunk) -> Tensor:
        target, student = at.target("teacher", 2.0), at.student(self.student_temperature)
        return (target.probs * (target.log_NV - student.log_NV)).sum(-1)


class PlainReverseKl(PlainKl):
    """Reverse KL without its gradient."""

    kind: Literal["plain_reverse_kl"] = "plain_reverse_kl"  # type: ignore[assignment]

    def values(self, at: Chunk) -> Tensor:
        target, student = at.target("teacher", 2.0), at.student(self.student_temperature)
        return (student.probs * (student.log_NV - target.log_NV)).sum(-1)


class PlainJs(PlainKl):
    """Jensen-Shannon without its gradient."""

    kind: Literal["plain_js"] = "plain_js"  # type: ignore[assignment]

    def values(self, at: Chunk) -> Tensor:
        target, student = at.target("teacher", 2.0), at.student(self.student_temperature)
        mixed_NV = (target.probs + student.probs) / 2
        one_NV, other_NV = (side.probs * (side.log_NV - mixed_NV.log()) for side in (target, student))
        return (one_NV + other_NV).sum(-1) / 2


class PlainCe(TokenTerm):
    """Cross-entropy without its gradient."""

    kind: Literal["plain_ce"] = "plain_ce"

    def values(self, at: Chunk) -> Tensor:
        return -at.student(self.student_temperature).log_NV.gather(1, at.labels_N[:, None]).squeeze(1)


PAIRS: dict[str, tuple[type[TokenTerm], type[ClosedForm]]] = {
    "kl": (PlainKl, Kl),
    "reverse_kl": (PlainReverseKl, ReverseKl),
    "js": (PlainJs, Js),
    "ce": (PlainCe, Ce),
}


def weighted(kind: type[TokenTerm]) -> type[TokenTerm]:
    """The same term with weights of its tokens."""

    class Weighted(kind):  # type: ignore[valid-type,misc]
        def token_weights(self, at: Chunk) -> Tensor:
            return WEIGHTS_N[at.tokens]

    return Weighted


def made(kind: type[TokenTerm], **fields: Any) -> TokenTerm:
    if "target_temperature" in kind.model_fields:
        fields["target_temperature"] = 2.0
    return kind.model_validate(fields)


def ours(terms: list[Term], chunk_tokens: int | None = None) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Loss, gradients of the hidden states and of the weight, and the terms' sums."""
    hidden_ND, weight_VD = HIDDEN_ND.clone().requires_grad_(), WEIGHT_VD.clone().requires_grad_()
    loss, sums = loss_and_sums(hidden_ND, weight_VD, BATCH, TARGETS, terms, chunk_tokens)
    loss.backward()
    assert hidden_ND.grad is not None
    assert weight_VD.grad is not None
    return loss.detach(), hidden_ND.grad, weight_VD.grad, list(sums.values())


def assert_same(got: tuple[Any, ...], wanted: tuple[Any, ...]) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def by_hand(name: str, temperature: float, weight: float, tokens: Tensor, weights_N: Tensor) -> tuple[Any, ...]:
    """The term over some tokens, on whole logits."""
    hidden_ND, weight_VD = HIDDEN_ND.clone().requires_grad_(), WEIGHT_VD.clone().requires_grad_()
    logits_NV = hidden_ND @ weight_VD.T / temperature
    p_NV, q_NV = logits_NV.softmax(-1), (TARGET_NV / 2).softmax(-1)
    m_NV = (p_NV + q_NV) / 2
    values_N = {
        "kl": (q_NV * (q_NV / p_NV).log()).sum(-1),
        "reverse_kl": (p_NV * (p_NV / q_NV).log()).sum(-1),
        "js": ((q_NV * (q_NV / m_NV).log()).sum(-1) + (p_NV * (p_NV / m_NV).log()).sum(-1)) / 2,
        "ce": functional.cross_entropy(logits_NV, BATCH.labels_N, reduction="none"),
    }[name]
    total = temperature**2 * (values_N * weights_N)[tokens].sum()
    (weight * total).backward()
    return weight * total.detach(), hidden_ND.grad, weight_VD.grad, [total.detach()]


@pytest.mark.parametrize("contexts", get_args(Contexts))
@pytest.mark.parametrize("chunk_tokens", [1, 5, N, None])
@pytest.mark.parametrize("name", PAIRS)
def test_it_is_the_formula_and_the_closed_form(name: str, chunk_tokens: int | None, contexts: Contexts) -> None:
    fields = {"student_temperature": 1.5, "weight": 0.3, "contexts": contexts}
    tokens = TOKENS_OF_CONTEXT[contexts]
    for kind in PAIRS[name]:
        wanted = by_hand(name, 1.5, 0.3, tokens, torch.ones(N, dtype=torch.float64))
        assert_same(ours([made(kind, **fields)], chunk_tokens), wanted)
        wanted = by_hand(name, 1.5, 0.3, tokens, WEIGHTS_N)
        assert_same(ours([made(weighted(kind), **fields)], chunk_tokens), wanted)
    assert made(PAIRS[name][0], **fields).count(BATCH) == len(tokens), "weights of tokens do not change what is divided by"


@pytest.mark.parametrize("chunk_tokens", [4, None])
def test_both_kinds_of_terms_in_one_objective(chunk_tokens: int | None) -> None:
    closed = [made(Ce, weight=0.5, contexts="all"), made(Kl, student_temperature=2.0), made(Js, contexts="sampled")]
    plain = [made(PlainCe, weight=0.5), made(PlainKl, student_temperature=2.0), made(PlainJs, contexts="sampled")]
    wanted = ours([*closed], chunk_tokens)
    assert_same(ours([*plain], chunk_tokens), wanted)
    assert_same(ours([plain[0], closed[1], plain[2]], chunk_tokens), wanted)
    assert_same(ours([closed[0], plain[1], closed[2]], chunk_tokens), wanted)


def test_a_term_finds_what_it_has_built() -> None:
    class Twice(PlainCe):
        def values(self, at: Chunk) -> Tensor:
            assert isinstance(at.live, Factor)
            return at.live.factor * super().values(at)

    class Factor(Live):
        factor = 2.0

    (one,), (ce,) = active([Twice()]), active([Ce(contexts="all")])
    for terms, factor in (([one, ce], 2.0), ([ce, one], 2.0)):
        terms = [ActiveTerm(term.term, 1.0, live=Factor() if term is one else None) for term in terms]
        _, sums_K = objective(Outputs(hidden_ND=HIDDEN_ND), WEIGHT_VD, BATCH, {}, terms, NOW, 4)
        by_name = dict(zip((term.name for term in terms), sums_K, strict=True))
        torch.testing.assert_close(by_name["plain_ce"], factor * by_name["ce"])


class SquaredStates(OutputTerm):
    """Squared distance of the student's last states from the teacher's."""

    kind: Literal["squared_states"] = "squared_states"
    needs = frozenset({HIDDEN_STATES})

    def targets(self) -> tuple[str, ...]:
        return ("teacher",)

    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Batch, clock: Clock, live: Live | None) -> Tensor:
        mine_ND, theirs_ND = student.auxiliary[HIDDEN_STATES][-1], targets["teacher"].auxiliary[HIDDEN_STATES][-1]
        return ((mine_ND - theirs_ND) ** 2).sum()


def test_a_term_over_other_outputs_reaches_the_loss_with_its_gradient() -> None:
    states_ND, theirs_ND, hidden_ND = normal(N, D, seed=7).requires_grad_(), normal(N, D, seed=8), HIDDEN_ND.clone()
    student = Outputs(auxiliary={HIDDEN_STATES: (states_ND,)}, hidden_ND=hidden_ND.requires_grad_())
    targets = {"teacher": Outputs(TARGETS["teacher"], {HIDDEN_STATES: (theirs_ND,)})}
    terms = [
        ActiveTerm(SquaredStates(name="states"), weight=0.25, share=3.0),
        *active([made(Kl)]),
        ActiveTerm(Ce(name="ce", contexts="all"), weight=0.5, share=0.1),
    ]
    loss, sums_K = objective(student, WEIGHT_VD, BATCH, targets, terms, NOW, 4)
    loss.backward()
    squared = ((states_ND - theirs_ND) ** 2).sum().detach()
    _, sums = loss_and_sums(HIDDEN_ND, WEIGHT_VD, BATCH, TARGETS, [made(Kl), Ce(contexts="all")])
    torch.testing.assert_close(sums_K, torch.stack([squared, *sums.values()]))
    torch.testing.assert_close(loss.detach(), 0.25 * 3 * squared + sums["kl"] + 0.5 * 0.1 * sums["ce"])
    torch.testing.assert_close(states_ND.grad, 0.25 * 3 * 2 * (states_ND - theirs_ND).detach())
    assert hidden_ND.grad is not None
    torch.testing.assert_close(hidden_ND.grad, ours([made(Kl), Ce(contexts="all", weight=0.05)])[1])


def test_an_objective_of_other_outputs_alone() -> None:
    states_ND = normal(N, D, seed=7).requires_grad_()
    student = Outputs(auxiliary={HIDDEN_STATES: (states_ND,)}, hidden_ND=HIDDEN_ND.clone().requires_grad_())
    targets = {"teacher": Outputs(None, {HIDDEN_STATES: (torch.zeros(N, D, dtype=torch.float64),)})}
    loss, (total,) = objective(student, WEIGHT_VD, BATCH, targets, active([SquaredStates()]), NOW)
    loss.backward()
    assert total == loss.detach()
    torch.testing.assert_close(states_ND.grad, 2 * states_ND.detach())


def test_what_terms_need_is_asked_for() -> None:
    assert wanted_by(active([Ce()])) == frozenset()
    assert wanted_by(active([Ce(), SquaredStates()])) == {HIDDEN_STATES}
