"""Token distributions: heads, logits and mixtures are log-probabilities over a chunk of tokens."""

import math

import pytest
import torch

from raykd.parts.distribution import HeadDistribution, LogitsDistribution

N, D, V = 7, 5, 11
CHUNK = slice(2, 6)


@pytest.fixture
def head() -> HeadDistribution:
    generator = torch.Generator().manual_seed(0)
    return HeadDistribution(torch.randn(N, D, generator=generator), torch.randn(V, D, generator=generator))


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(N, V, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_head_is_the_softmax_of_its_logits(head: HeadDistribution, temperature: float) -> None:
    wanted_NV = torch.log_softmax(head.hidden_ND.double() @ head.weight_VD.double().T / temperature, -1)
    torch.testing.assert_close(head.log_probs(CHUNK, temperature).double(), wanted_NV[CHUNK], rtol=1e-5, atol=1e-5)
    assert head.shape == (N, V)


def test_head_and_logits_agree(head: HeadDistribution) -> None:
    same = LogitsDistribution(head.hidden_ND @ head.weight_VD.T)
    assert same.shape == head.shape
    torch.testing.assert_close(same.log_probs(CHUNK, 3.0), head.log_probs(CHUNK, 3.0))


@pytest.mark.parametrize(("dtype", "out"), [("bfloat16", "float32"), ("float16", "float32"), ("float64", "float64")])
def test_softmax_is_taken_in_float32_or_wider(logits: torch.Tensor, dtype: str, out: str) -> None:
    narrow_NV = logits.to(getattr(torch, dtype))
    log_NV = LogitsDistribution(narrow_NV).log_probs(slice(0, N), 1.0)
    assert log_NV.dtype == getattr(torch, out)
    torch.testing.assert_close(log_NV.exp().sum(-1), torch.ones(N, dtype=log_NV.dtype))


def test_a_distribution_never_carries_a_gradient(head: HeadDistribution) -> None:
    head.weight_VD.requires_grad_()
    assert not head.log_probs(CHUNK, 1.0).requires_grad


def test_an_impossible_token_is_finite(logits: torch.Tensor) -> None:
    logits[:, 3] = -math.inf
    log_NV = LogitsDistribution(logits).log_probs(slice(0, N), 1.0)
    assert torch.isfinite(log_NV).all()
    assert (log_NV.exp()[:, 3] == 0).all()


def test_the_callers_logits_stay_as_they_are(logits: torch.Tensor) -> None:
    before_NV = logits.clone()
    LogitsDistribution(logits).log_probs(CHUNK, 1.0)
    assert torch.equal(logits, before_NV)
