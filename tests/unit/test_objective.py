"""The chunked objective against the plain way: whole logits, automatic differentiation, float64."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from raykd.parts.distribution import HeadDistribution, LogitsDistribution, TokenDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.recipes.recipe import named
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.js import Js
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.reverse_kl import ReverseKl
from raykd.parts.terms.term import Divergence, Term, TokenTerm
from raykd.training.objective import ObjectiveHead
from tests.terms import NOW, active, labelled, loss_and_sums, saying

N, D, V = 23, 5, 17
KD: list[Term] = [Ce(weight=0.8), Kl(student_temperature=2.0, target_temperature=2.0)]
ALL: list[Term] = [
    Ce(weight=0.7, label_smoothing=0.1),
    Kl(weight=1.3, student_temperature=2.0, target_temperature=1.5),
    ReverseKl(weight=0.4, target="self", student_temperature=2.0, scale_by_temperature=False),
    Js(weight=2.0, target="self", student_temperature=0.7, target_temperature=0.7, mix=0.3),
]


@dataclass
class Case:
    """Inputs of the objective, in float64."""

    hidden_ND: Tensor
    weight_VD: Tensor
    labels_N: Tensor
    teacher_ND: Tensor
    teacher_VD: Tensor
    self_NV: Tensor

    def targets(self, dtype: torch.dtype = torch.float64) -> dict[str, TokenDistribution]:
        teacher = HeadDistribution(self.teacher_ND.to(dtype), self.teacher_VD.to(dtype))
        itself = LogitsDistribution(self.self_NV.to(dtype))
        return {"teacher": teacher, "self": itself}

    def part(self, tokens: Any) -> "Case":
        names = ("hidden_ND", "labels_N", "teacher_ND", "self_NV")
        return replace(self, **{name: getattr(self, name)[tokens] for name in names})


@pytest.fixture
def case() -> Case:
    return new_case(N, D, V)


def new_case(tokens: int, width: int, vocabulary: int, seed: int = 0) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Case(
        hidden_ND=normal(tokens, width),
        weight_VD=normal(vocabulary, width),
        labels_N=torch.randint(0, vocabulary, (tokens,), generator=generator),
        teacher_ND=normal(tokens, width + 2),
        teacher_VD=normal(vocabulary, width + 2),
        self_NV=normal(tokens, vocabulary) * 2,
    )


def plain_term(term: Term, logits_NV: Tensor, labels_N: Tensor, targets: Mapping[str, TokenDistribution]) -> Tensor:
    assert isinstance(term, TokenTerm)
    temperature = NOW.at(term.student_temperature)
    scale = temperature**2 if term.scale_by_temperature else 1.0
    if isinstance(term, Ce):
        cooled_NV = logits_NV / temperature
        return scale * functional.cross_entropy(cooled_NV, labels_N, reduction="sum", label_smoothing=term.label_smoothing)
    assert isinstance(term, Divergence)
    p_NV = (logits_NV / temperature).softmax(-1)
    q_NV = targets[term.target].log_probs(slice(0, len(labels_N)), NOW.at(term.target_temperature)).exp()
    mix = term.mix if isinstance(term, Js) else 0.5
    m_NV = mix * q_NV + (1 - mix) * p_NV
    forward, backward = (q_NV * (q_NV / p_NV).log()).sum(), (p_NV * (p_NV / q_NV).log()).sum()
    q_from_m, p_from_m = (q_NV * (q_NV / m_NV).log()).sum(), (p_NV * (p_NV / m_NV).log()).sum()
    values = {"kl": forward, "reverse_kl": backward, "js": mix * q_from_m + (1 - mix) * p_from_m}
    return scale * values[term.kind]


def plain(case: Case, terms: Sequence[Term]) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    """Loss, term sums and the gradients of the hidden states and the weight."""
    hidden_ND, weight_VD = case.hidden_ND.detach().clone().requires_grad_(), case.weight_VD.detach().clone().requires_grad_()
    logits_NV = hidden_ND @ weight_VD.T
    sums = {term.name or "": plain_term(term, logits_NV, case.labels_N, case.targets()) for term in named(terms)}
    loss = torch.stack([NOW.at(term.weight) * sums[term.name or ""] for term in named(terms)]).sum()
    loss.backward()
    assert hidden_ND.grad is not None
    assert weight_VD.grad is not None
    return loss.detach(), {name: value.detach() for name, value in sums.items()}, hidden_ND.grad, weight_VD.grad


def ours(
    case: Case, terms: Sequence[Term], chunk_tokens: int | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    hidden_ND = case.hidden_ND.detach().to(dtype, copy=True).requires_grad_()
    weight_VD = case.weight_VD.detach().to(dtype, copy=True).requires_grad_()
    loss, sums = loss_and_sums(hidden_ND, weight_VD, case.labels_N, case.targets(dtype), terms, chunk_tokens)
    loss.backward()
    assert hidden_ND.grad is not None
    assert weight_VD.grad is not None
    return loss.detach(), sums, hidden_ND.grad, weight_VD.grad


def assert_same(case: Case, terms: Sequence[Term], chunk_tokens: int | None, tolerance: float = 1e-11) -> None:
    loss, sums, *gradients = plain(case, terms)
    our_loss, our_sums, *our_gradients = ours(case, terms, chunk_tokens)
    assert labelled(case.labels_N).n_valid() == len(case.labels_N)
    assert list(our_sums) == [term.name for term in named(terms)]
    for got, wanted in zip([our_loss, *our_gradients, *our_sums.values()], [loss, *gradients, *sums.values()], strict=True):
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("term", ALL, ids=lambda term: term.kind)
def test_each_term_alone(case: Case, term: Term) -> None:
    assert_same(case, [term], chunk_tokens=6)


@pytest.mark.parametrize("chunk_tokens", [1, 4, N - 1, N, 1000, None])
def test_all_terms_at_any_chunk_size(case: Case, chunk_tokens: int | None) -> None:
    assert_same(case, ALL, chunk_tokens)


@pytest.mark.parametrize("seed", range(12))
def test_random_terms_masks_and_chunks(seed: int) -> None:
    draw = random.Random(seed)
    case = new_case(draw.randint(1, 40), draw.randint(1, 8), draw.randint(2, 30), seed)
    mask_N = torch.tensor([draw.random() < 0.7 for _ in case.labels_N])
    terms = [random_term(draw) for _ in range(draw.randint(1, 5))]
    valid_N = labelled(torch.where(mask_N, case.labels_N, -100)).valid_N
    assert_same(case.part(valid_N), terms, chunk_tokens=draw.randint(1, 45), tolerance=1e-9)


def random_term(draw: random.Random) -> Term:
    kinds: list[type[Term]] = [Ce, Kl, ReverseKl, Js]
    kind = draw.choice(kinds)
    fields: dict[str, Any] = {
        "weight": draw.uniform(0.1, 3),
        "target": draw.choice(["teacher", "self"]),
        "student_temperature": draw.choice([1.0, draw.uniform(0.5, 4)]),
        "target_temperature": draw.choice([1.0, draw.uniform(0.5, 4)]),
        "scale_by_temperature": draw.random() < 0.5,
        "label_smoothing": draw.choice([0.0, draw.uniform(0, 0.9)]),
        "mix": draw.uniform(0.05, 0.95),
    }
    return kind.model_validate({name: value for name, value in fields.items() if name in kind.model_fields})


def test_float32_is_within_1e_5_of_float64() -> None:
    case = new_case(40, 16, 3000)
    loss, _, hidden_grad_ND, weight_grad_VD = plain(case, ALL)
    our_loss, _, our_hidden_grad_ND, our_weight_grad_VD = ours(case, ALL, 16, torch.float32)
    assert our_loss.dtype == our_hidden_grad_ND.dtype == our_weight_grad_VD.dtype == torch.float32
    assert abs(our_loss.item() / loss.item() - 1) < 1e-5
    assert (our_hidden_grad_ND - hidden_grad_ND).abs().max() < 1e-5 * hidden_grad_ND.abs().max()
    assert (our_weight_grad_VD - weight_grad_VD).abs().max() < 1e-5 * weight_grad_VD.abs().max()


def test_bfloat16_accumulates_in_float32() -> None:
    case = new_case(600, 16, 300)
    for name in ("hidden_ND", "weight_VD", "teacher_ND", "teacher_VD", "self_NV"):
        setattr(case, name, getattr(case, name).bfloat16().double())
    loss, _, hidden_grad_ND, weight_grad_VD = plain(case, KD)
    our_loss, _, our_hidden_grad_ND, our_weight_grad_VD = ours(case, KD, 1, torch.bfloat16)
    assert (our_loss.dtype, our_hidden_grad_ND.dtype, our_weight_grad_VD.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.bfloat16,
    )
    assert abs(our_loss.item() / loss.item() - 1) < 1e-2
    for grad, wanted in ((our_hidden_grad_ND, hidden_grad_ND), (our_weight_grad_VD, weight_grad_VD)):
        assert (grad - wanted).norm() < 7e-3 * wanted.norm()  # 2e-2 if the sum were in bfloat16


def test_autocast_is_honoured(case: Case) -> None:
    hidden_ND, weight_VD = case.hidden_ND.float().requires_grad_(), case.weight_VD.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = loss_and_sums(hidden_ND, weight_VD, case.labels_N, case.targets(torch.float32), KD, 6)
    narrow, _ = loss_and_sums(hidden_ND.bfloat16(), weight_VD.bfloat16(), case.labels_N, case.targets(torch.float32), KD, 6)
    assert loss.item() == narrow.item()
    loss.backward()
    assert hidden_ND.grad is not None
    assert weight_VD.grad is not None
    assert hidden_ND.grad.dtype == weight_VD.grad.dtype == torch.float32


def test_gradient_is_scaled_by_what_the_caller_does_with_the_loss(case: Case) -> None:
    hidden_ND, weight_VD = case.hidden_ND.requires_grad_(), case.weight_VD.requires_grad_()
    loss, _ = loss_and_sums(hidden_ND, weight_VD, case.labels_N, case.targets(), KD, 6)
    (loss * 0.125).backward()
    _, _, hidden_grad_ND, weight_grad_VD = plain(case, KD)
    torch.testing.assert_close(hidden_ND.grad, 0.125 * hidden_grad_ND)
    torch.testing.assert_close(weight_VD.grad, 0.125 * weight_grad_VD)


def test_a_second_backward_is_refused(case: Case) -> None:
    loss, _ = loss_and_sums(case.hidden_ND.requires_grad_(), case.weight_VD, case.labels_N, case.targets(), KD)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="earlier backward"):
        loss.backward()


def test_no_valid_token_gives_zero_and_still_a_graph(case: Case) -> None:
    empty = case.part(slice(0, 0))
    loss, sums, hidden_grad_ND, weight_grad_VD = ours(empty, ALL)
    assert labelled(empty.labels_N).n_valid() == 0
    assert loss == 0
    assert all(value == 0 for value in sums.values())
    assert hidden_grad_ND.shape == (0, D)
    assert torch.equal(weight_grad_VD, torch.zeros_like(case.weight_VD))


def test_no_term_gives_zero_and_still_a_graph(case: Case) -> None:
    loss, _, hidden_grad_ND, _ = ours(case, [], 6)
    assert loss == 0
    assert torch.equal(hidden_grad_ND, torch.zeros_like(hidden_grad_ND))


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_the_same(case: Case) -> None:
    hidden_ND = case.hidden_ND.clone().requires_grad_()
    loss_and_sums(hidden_ND, case.weight_VD, case.labels_N, case.targets(), KD, 6)[0].backward()
    assert case.weight_VD.grad is None
    torch.testing.assert_close(hidden_ND.grad, plain(case, KD)[2])


def test_no_gradient_work_without_gradients(case: Case) -> None:
    weight_VD = case.weight_VD.requires_grad_()
    with torch.no_grad(), Largest() as largest:
        loss, _ = loss_and_sums(case.hidden_ND, weight_VD, case.labels_N, case.targets(), KD, 2)
    assert not loss.requires_grad
    assert largest.elements < weight_VD.numel()
    torch.testing.assert_close(loss, plain(case, KD)[0])


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operator made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        fresh = not func.is_view if hasattr(func, "is_view") else True
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and fresh:
                self.elements = max(self.elements, tensor.numel())
        return out


def test_nothing_is_as_large_as_tokens_times_vocabulary() -> None:
    case = new_case(64, 4, 100)
    hidden_ND, weight_VD = case.hidden_ND.requires_grad_(), case.weight_VD.requires_grad_()
    targets = case.targets()
    with Largest() as largest:
        loss_and_sums(hidden_ND, weight_VD, case.labels_N, targets, ALL, chunk_tokens=8)[0].backward()
    assert 8 * 100 <= largest.elements < 10 * 100


def test_parts_of_a_batch_sum_to_the_whole(case: Case) -> None:
    loss, sums, hidden_grad_ND, weight_grad_VD = ours(case, ALL, 6)
    parts = [ours(case.part(tokens), ALL, 4) for tokens in (slice(0, 2), slice(2, 2), slice(2, 15), slice(15, N))]
    torch.testing.assert_close(sum(part[0] for part in parts), loss)
    for name, value in sums.items():
        torch.testing.assert_close(sum(part[1][name] for part in parts), value)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), hidden_grad_ND)
    torch.testing.assert_close(sum(part[3] for part in parts), weight_grad_VD)


def test_head_shares_its_weight_with_the_embedding(case: Case) -> None:
    embedding = nn.Embedding(V, D, dtype=torch.float64)
    with torch.no_grad():
        embedding.weight.copy_(case.weight_VD)
    head = ObjectiveHead(embedding.weight, chunk_tokens=6)
    loss, term_sums_K = head(
        Outputs(hidden_ND=case.hidden_ND), labelled(case.labels_N), saying(case.targets()), active(KD), NOW
    )
    (loss + embedding(case.labels_N).sum()).backward()
    wanted_loss, wanted_sums, _, weight_grad_VD = plain(case, KD)
    torch.testing.assert_close(loss.detach(), wanted_loss)
    torch.testing.assert_close(term_sums_K, torch.stack(list(wanted_sums.values())))
    assert not term_sums_K.requires_grad
    torch.testing.assert_close(embedding.weight.grad, weight_grad_VD + torch.bincount(case.labels_N, minlength=V)[:, None])


def test_wrong_inputs_are_named(case: Case) -> None:
    hidden_ND, weight_VD, labels_N = case.hidden_ND, case.weight_VD, case.labels_N
    ignored = SimpleNamespace(labels_N=labels_N.index_fill(0, torch.tensor([3]), -100))
    with pytest.raises(ValueError, match="select the valid positions"):
        loss_and_sums(hidden_ND, weight_VD, ignored, case.targets(), KD)
    with pytest.raises(ValueError, match="22 labels for 23 hidden states"):
        loss_and_sums(hidden_ND, weight_VD, labels_N[1:], case.targets(), KD)
    with pytest.raises(ValueError, match="no distribution for the target `teacher`"):
        loss_and_sums(hidden_ND, weight_VD, labels_N, {}, KD)
    with pytest.raises(ValueError, match="`teacher` has 22 tokens"):
        loss_and_sums(hidden_ND, weight_VD, labels_N, case.part(slice(1, N)).targets(), KD)
