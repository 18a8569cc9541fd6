"""Every divergence against its formula in float64, and its gradient against automatic differentiation of that formula."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raykd.parts.distribution import LogitsDistribution
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.js import Js
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.reverse_kl import ReverseKl
from raykd.parts.terms.term import Chunk, ClosedForm
from tests.terms import NOW, labelled, nobody

N, V = 9, 13
Divergence = Callable[..., Tensor]


def explicit_kl(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    return (logq_NV.exp() * (logq_NV - logp_NV)).sum(-1)


def explicit_js(mix: float, logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    log_m_NV = (mix * logq_NV.exp() + (1 - mix) * logp_NV.exp()).log()
    return mix * explicit_kl(log_m_NV, logq_NV) + (1 - mix) * explicit_kl(log_m_NV, logp_NV)


DIVERGENCES: dict[str, tuple[ClosedForm, Divergence]] = {
    "kl": (Kl(), explicit_kl),
    "reverse_kl": (ReverseKl(), lambda logp_NV, logq_NV: explicit_kl(logq_NV, logp_NV)),
    "js": (Js(), partial(explicit_js, 0.5)),
    "js_0.1": (Js(mix=0.1), partial(explicit_js, 0.1)),
    "js_0.9": (Js(mix=0.9), partial(explicit_js, 0.9)),
}


def ours(
    term: ClosedForm,
    student_NV: Tensor,
    target_NV: Tensor,
    into_NV: Tensor | None = None,
    scale: float | Tensor = 1.0,
    labels_N: Tensor | None = None,
) -> Tensor:
    """values_N of the term where these are the logits of student and target."""
    labels_N = torch.zeros(len(student_NV), dtype=torch.int64) if labels_N is None else labels_N
    targets = {"teacher": LogitsDistribution(target_NV)}
    chunk = Chunk(student_NV, slice(0, len(student_NV)), labelled(labels_N), labels_N, targets, NOW, nobody)
    return term.values_and_gradient(chunk, into_NV, scale)


def logits(seed: int) -> Tensor:
    return torch.randn(N, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4


@pytest.mark.parametrize("scale", [0.3, torch.linspace(0, 2, N, dtype=torch.float64)[:, None]], ids=["number", "by token"])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_value_and_gradient(name: str, scale: float | Tensor) -> None:
    term, explicit = DIVERGENCES[name]
    student_NV, target_NV = logits(0).requires_grad_(), logits(1)
    wanted_N = explicit(student_NV.log_softmax(-1), target_NV.log_softmax(-1))
    (wanted_NV,) = torch.autograd.grad(wanted_N.sum(), student_NV)

    before_NV = logits(2)
    into_NV = before_NV.clone()
    values_N = ours(term, student_NV.detach(), target_NV, into_NV, scale)
    torch.testing.assert_close(values_N, wanted_N.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(into_NV, before_NV + scale * wanted_NV, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours(term, student_NV.detach(), target_NV), values_N)


@pytest.mark.parametrize("scale", [2.0, torch.linspace(0, 2, N, dtype=torch.float64)[:, None]], ids=["number", "by token"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_is_pytorchs(smoothing: float, scale: float | Tensor) -> None:
    student_NV, labels_N = logits(0).requires_grad_(), torch.arange(N) % V
    wanted_N = functional.cross_entropy(student_NV, labels_N, reduction="none", label_smoothing=smoothing)
    (wanted_NV,) = torch.autograd.grad(wanted_N.sum(), student_NV)
    into_NV = torch.zeros(N, V, dtype=torch.float64)
    values_N = ours(Ce(label_smoothing=smoothing), student_NV.detach(), logits(1), into_NV, scale, labels_N)
    torch.testing.assert_close(values_N, wanted_N.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(into_NV, scale * wanted_NV, rtol=1e-12, atol=1e-12)


def test_kl_is_pytorchs() -> None:
    student_NV, target_NV = (logits(seed).log_softmax(-1) for seed in (0, 1))
    wanted_N = functional.kl_div(student_NV, target_NV, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(ours(Kl(), logits(0), logits(1)), wanted_N)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_distribution_does_not_diverge_from_itself(name: str) -> None:
    into_NV = torch.zeros(N, V, dtype=torch.float64)
    assert ours(DIVERGENCES[name][0], logits(0), logits(0), into_NV).abs().max() < 1e-14
    assert into_NV.abs().max() < 1e-14


def test_js_is_symmetric_at_one_half_and_bounded_by_log_2() -> None:
    a, b = logits(0), logits(1)
    torch.testing.assert_close(ours(Js(), a, b), ours(Js(), b, a), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours(Js(mix=0.2), a, b), ours(Js(mix=0.8), b, a), rtol=1e-12, atol=1e-14)
    assert (ours(Js(mix=0.2), a, b) - ours(Js(mix=0.2), b, a)).abs().max() > 1e-3
    assert (ours(Js(), a, b) <= 0.6931471805599453).all()


def test_js_tends_to_kl_and_reverse_kl() -> None:
    a, b = (logits(seed) / 8 for seed in (0, 1))
    torch.testing.assert_close(ours(Js(mix=1e-6), a, b) / 1e-6, ours(Kl(), a, b), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours(Js(mix=1 - 1e-6), a, b) / 1e-6, ours(ReverseKl(), a, b), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_underflow_on_both_sides_is_not_nan(name: str) -> None:
    student_NV, target_NV = torch.zeros(2, 3), torch.zeros(2, 3)
    student_NV[:, 0], target_NV[:, 0] = -500.0, -600.0
    into_NV = torch.zeros(2, 3)
    values_N = ours(DIVERGENCES[name][0], student_NV, target_NV, into_NV)
    assert torch.isfinite(values_N).all()
    assert torch.isfinite(into_NV).all()
