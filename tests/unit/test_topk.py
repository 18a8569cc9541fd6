"""Divergences from a target that knows its K likeliest tokens and the tail: against the formula in float64, with gradients.

N tokens, V vocabulary, K likeliest tokens, E = K + 1 events.
"""

import pytest
import torch
from torch import Tensor

from raykd.labelling.answers import likeliest, narrowed
from raykd.parts.distribution import HeadDistribution, LogitsDistribution, TopKDistribution
from raykd.parts.terms.js import Js
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.reverse_kl import ReverseKl
from raykd.parts.terms.term import Chunk, Divergence
from tests.terms import NOW, labelled, nobody
from tests.unit.test_terms import explicit_js, explicit_kl

N, V, K, D = 11, 40, 5, 8
TERMS = {
    "kl": (Kl, explicit_kl),
    "reverse_kl": (ReverseKl, lambda log_p, log_q: explicit_kl(log_q, log_p)),
    "js": (Js, lambda log_p, log_q: explicit_js(0.5, log_p, log_q)),
}


def logits(seed: int) -> Tensor:
    return torch.randn(N, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def kept(target_NV: Tensor, temperature: float, k: int = K) -> TopKDistribution:
    """What a cache keeps, in float64."""
    log_NV = target_NV.log_softmax(-1)
    tokens_NK = log_NV.topk(k).indices
    others_NV = (target_NV / temperature).log_softmax(-1).scatter(1, tokens_NK, -torch.inf)
    return TopKDistribution(tokens_NK, log_NV.gather(1, tokens_NK), {temperature: others_NV.logsumexp(-1)}, V)


def in_events(log_NV: Tensor, tokens_NK: Tensor) -> Tensor:
    tail_N1 = log_NV.scatter(1, tokens_NK, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat((log_NV.gather(1, tokens_NK), tail_N1), -1)


def value_and_gradient(term: Divergence, student_NV: Tensor, target: object, scale: float) -> tuple[Tensor, Tensor]:
    labels_N = torch.zeros(N, dtype=torch.int64)
    chunk = Chunk(student_NV, slice(0, N), labelled(labels_N), labels_N, {"teacher": target}, NOW, nobody)  # type: ignore[dict-item]
    into_NV = torch.zeros_like(student_NV)
    return term.values_and_gradient(chunk, into_NV, scale), into_NV


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", TERMS)
def test_value_and_gradient_over_the_events(name: str, temperature: float) -> None:
    kind, explicit = TERMS[name]
    term = kind(student_temperature=temperature, target_temperature=temperature)
    student_NV, target_NV = logits(0), logits(1)
    target = kept(target_NV, temperature)

    scaled_NV = (student_NV / temperature).requires_grad_()
    log_q_NE = in_events((target_NV / temperature).log_softmax(-1), target.tokens_NK)
    wanted_N = explicit(in_events(scaled_NV.log_softmax(-1), target.tokens_NK), log_q_NE)
    (wanted_NV,) = torch.autograd.grad(wanted_N.sum(), scaled_NV)

    values_N, gradient_NV = value_and_gradient(term, student_NV, target, 0.7)
    # The target's events pass through float32.
    torch.testing.assert_close(values_N, wanted_N.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient_NV, 0.7 * wanted_NV, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_all_tokens_but_one_are_the_whole_distribution(name: str) -> None:
    term = TERMS[name][0]()
    student_NV, target_NV = logits(2), logits(3)
    whole = value_and_gradient(term, student_NV, LogitsDistribution(target_NV), 1.0)
    sparse = value_and_gradient(term, student_NV, kept(target_NV, 1.0, V - 1), 1.0)
    for theirs, ours in zip(whole, sparse, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_fewer_tokens_never_say_more(name: str) -> None:
    term = TERMS[name][0]()
    student_NV, target_NV = logits(4), logits(5)
    values = [value_and_gradient(term, student_NV, kept(target_NV, 1.0, k), 1.0)[0] for k in (1, 3, 10, 30)]
    whole_N, _ = value_and_gradient(term, student_NV, LogitsDistribution(target_NV), 1.0)
    for fewer_N, more_N in zip(values, [*values[1:], whole_N], strict=True):
        assert (fewer_N <= more_N + 1e-5).all()


def test_a_student_that_is_the_target_has_nothing_to_learn() -> None:
    target_NV = logits(6)
    values_N, gradient_NV = value_and_gradient(Kl(), target_NV, kept(target_NV, 1.0), 1.0)
    assert values_N.abs().max() < 1e-6
    assert gradient_NV.abs().max() < 1e-6


def test_a_peaked_student_keeps_a_finite_gradient() -> None:
    """Nothing of a tail that float32 knows: its logarithm must not be that of 0."""
    student_NV = torch.zeros(N, V).index_fill(1, torch.tensor([0]), 300.0)
    target_NV = logits(7).index_fill(1, torch.tensor([0]), 50.0)
    for kind, _ in TERMS.values():
        values_N, gradient_NV = value_and_gradient(kind(), student_NV, kept(target_NV, 1.0), 1.0)
        assert values_N.isfinite().all()
        assert gradient_NV.isfinite().all()


def test_a_temperature_that_was_not_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="kept at temperature 2, not 3"):
        kept(logits(8), 2.0).events(slice(0, N), 3.0)


def test_what_a_cache_keeps_of_a_head() -> None:
    draws = torch.Generator().manual_seed(9)
    head = HeadDistribution(torch.randn(1500, D, generator=draws), 3 * torch.randn(V, D, generator=draws))
    tokens_NK, log_probs_NK, log_tail_NT = likeliest(head, K, (1.0, 2.0))
    logits_NV = head.hidden_ND.double() @ head.weight_VD.double().T
    log_NV = logits_NV.log_softmax(-1)
    wanted = log_NV.topk(K)
    assert torch.equal(tokens_NK, wanted.indices)
    torch.testing.assert_close(log_probs_NK.double(), wanted.values, rtol=1e-3, atol=1e-3)
    for number, temperature in enumerate((1.0, 2.0)):
        tail_N = in_events((logits_NV / temperature).log_softmax(-1), tokens_NK)[:, -1]
        torch.testing.assert_close(log_tail_NT[:, number].double(), tail_N, rtol=1e-4, atol=1e-4)


def test_all_tokens_sum_to_one_with_the_tail_shared_out() -> None:
    for temperature in (1.0, 2.0):
        log_NV = kept(logits(10), temperature).log_probs(slice(0, N), temperature)
        torch.testing.assert_close(log_NV.exp().sum(-1), torch.ones(N), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "most"), [("float16", 6e-4), ("int8", 1e-2)])
def test_states_are_kept_to_this_error(kind: str, most: float) -> None:
    states_BSD = torch.randn(2, 30, D, generator=torch.Generator().manual_seed(11)) * torch.logspace(-1, 1, D)
    kept_BSD, scale_BD = narrowed(states_BSD, kind)  # type: ignore[arg-type]
    again_BSD = kept_BSD.float() if scale_BD is None else kept_BSD.float() * scale_BD[:, None]
    assert (again_BSD - states_BSD).norm() / states_BSD.norm() < most
