"""Every divergence against its formula in float64, and its gradient against automatic differentiation of that formula."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raykd.objectives.terms import LogProbs, cross_entropy, js, kl, reverse_kl

N, V = 9, 13
Divergence = Callable[..., Tensor]


def explicit_kl(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    return (logq_NV.exp() * (logq_NV - logp_NV)).sum(-1)


def explicit_js(mix: float, logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    log_m_NV = (mix * logq_NV.exp() + (1 - mix) * logp_NV.exp()).log()
    return mix * explicit_kl(log_m_NV, logq_NV) + (1 - mix) * explicit_kl(log_m_NV, logp_NV)


DIVERGENCES: dict[str, tuple[Divergence, Divergence]] = {
    "kl": (kl, explicit_kl),
    "reverse_kl": (reverse_kl, lambda logp_NV, logq_NV: explicit_kl(logq_NV, logp_NV)),
    "js": (js, partial(explicit_js, 0.5)),
    "js_0.1": (partial(js, mix=0.1), partial(explicit_js, 0.1)),
    "js_0.9": (partial(js, mix=0.9), partial(explicit_js, 0.9)),
}


def logits(seed: int) -> Tensor:
    return torch.randn(N, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4


def log_probs(seed: int) -> LogProbs:
    return LogProbs(logits(seed).log_softmax(-1))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_value_and_gradient(name: str) -> None:
    ours, explicit = DIVERGENCES[name]
    student_NV, target_NV = logits(0).requires_grad_(), logits(1).log_softmax(-1)
    wanted_N = explicit(student_NV.log_softmax(-1), target_NV)
    (wanted_NV,) = torch.autograd.grad(wanted_N.sum(), student_NV)

    before_NV = logits(2)
    into_NV = before_NV.clone()
    student = LogProbs(student_NV.detach().log_softmax(-1))
    values_N = ours(student, LogProbs(target_NV), into_NV=into_NV, scale=0.3)
    torch.testing.assert_close(values_N, wanted_N.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(into_NV, before_NV + 0.3 * wanted_NV, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours(student, LogProbs(target_NV)), values_N)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_is_pytorchs(smoothing: float) -> None:
    student_NV, labels_N = logits(0).requires_grad_(), torch.arange(N) % V
    wanted_N = functional.cross_entropy(student_NV, labels_N, reduction="none", label_smoothing=smoothing)
    (wanted_NV,) = torch.autograd.grad(wanted_N.sum(), student_NV)
    into_NV = torch.zeros(N, V, dtype=torch.float64)
    values_N = cross_entropy(LogProbs(student_NV.detach().log_softmax(-1)), labels_N, smoothing, into_NV, scale=2.0)
    torch.testing.assert_close(values_N, wanted_N.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(into_NV, 2 * wanted_NV, rtol=1e-12, atol=1e-12)


def test_kl_is_pytorchs() -> None:
    student, target = log_probs(0), log_probs(1)
    wanted_N = functional.kl_div(student.log_NV, target.log_NV, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(kl(student, target), wanted_N)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_distribution_does_not_diverge_from_itself(name: str) -> None:
    same, into_NV = log_probs(0), torch.zeros(N, V, dtype=torch.float64)
    assert DIVERGENCES[name][0](same, same, into_NV=into_NV).abs().max() < 1e-14
    assert into_NV.abs().max() < 1e-14


def test_js_is_symmetric_at_one_half_and_bounded_by_log_2() -> None:
    a, b = log_probs(0), log_probs(1)
    torch.testing.assert_close(js(a, b), js(b, a), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(js(a, b, mix=0.2), js(b, a, mix=0.8), rtol=1e-12, atol=1e-14)
    assert (js(a, b, mix=0.2) - js(b, a, mix=0.2)).abs().max() > 1e-3
    assert (js(a, b) <= 0.6931471805599453).all()


def test_js_tends_to_kl_and_reverse_kl() -> None:
    a, b = (LogProbs((logits(seed) / 8).log_softmax(-1)) for seed in (0, 1))
    torch.testing.assert_close(js(a, b, mix=1e-6) / 1e-6, kl(a, b), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(js(a, b, mix=1 - 1e-6) / 1e-6, reverse_kl(a, b), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_underflow_on_both_sides_is_not_nan(name: str) -> None:
    student_NV, target_NV = torch.zeros(2, 3), torch.zeros(2, 3)
    student_NV[:, 0], target_NV[:, 0] = -500.0, -600.0
    into_NV = torch.zeros(2, 3)
    values_N = DIVERGENCES[name][0](LogProbs(student_NV.log_softmax(-1)), LogProbs(target_NV.log_softmax(-1)), into_NV=into_NV)
    assert torch.isfinite(values_N).all()
    assert torch.isfinite(into_NV).all()
