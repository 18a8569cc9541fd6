"""Mistakes that other distillation libraries made in their losses; each test fails where raykd makes the same one.

TRL is huggingface/trl, Liger linkedin/Liger-Kernel.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raykd.parts.clock import Clock
from raykd.parts.distribution import LogitsDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.recipes.kd import KdRecipe
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.js import Js
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import Divergence
from raykd.training.objective import ObjectiveHead
from tests.terms import NOW, active, at_work, labelled, loss_and_sums

N, D, V = 12, 4, 9


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HIDDEN_ND, WEIGHT_VD, TEACHER_NV = normal(N, D, seed=1), normal(V, D, seed=2), normal(N, V, seed=3)
LABELS_N = torch.arange(N) % V


def loss_of(tokens: slice, term: Divergence) -> Tensor:
    target = LogitsDistribution(TEACHER_NV[tokens])
    return loss_and_sums(HIDDEN_ND[tokens], WEIGHT_VD, LABELS_N[tokens], {term.target: target}, [term], 5)[0]


def test_js_is_not_normalised_by_micro_batch() -> None:
    """TRL #4719, #6006, #6478: a mean over each micro-batch gives tokens of short micro-batches more weight."""
    term = Js()
    long, short = loss_of(slice(0, 11), term), loss_of(slice(11, 12), term)
    torch.testing.assert_close((long + short) / N, loss_of(slice(0, N), term) / N)
    assert abs((long / 11 + short) / 2 - loss_of(slice(0, N), term) / N) > 1e-3


def test_js_is_jensen_shannon() -> None:
    """TRL #5731: the fused JSD computed another loss."""
    p_NV, q_NV = (HIDDEN_ND @ WEIGHT_VD.T).softmax(-1), TEACHER_NV.softmax(-1)
    m_NV = (p_NV + q_NV) / 2
    wanted = 0.5 * (functional.kl_div(m_NV.log(), q_NV, reduction="sum") + functional.kl_div(m_NV.log(), p_NV, reduction="sum"))
    torch.testing.assert_close(loss_of(slice(0, N), Js()), wanted)


def test_kl_is_teacher_to_student_and_scaled_by_the_temperature_squared() -> None:
    """Liger's fused distillation leaves the factor out; swapped arguments give the reverse divergence."""
    log_p_NV, q_NV = (HIDDEN_ND @ WEIGHT_VD.T / 2).log_softmax(-1), (TEACHER_NV / 2).softmax(-1)
    term = Kl(student_temperature=2.0, target_temperature=2.0)
    torch.testing.assert_close(loss_of(slice(0, N), term), 4 * functional.kl_div(log_p_NV, q_NV, reduction="sum"))


def test_gradients_reach_the_parameter_through_autograd() -> None:
    """TRL #5934: a fused path that wrote gradients by itself went past the hooks that average them over workers."""
    head = ObjectiveHead(nn.Parameter(WEIGHT_VD.clone()))
    seen: list[Tensor] = []
    head.weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad))
    loss, _ = head(Outputs(hidden_ND=HIDDEN_ND), labelled(LABELS_N), {}, active([Ce()]), NOW)
    assert head.weight.grad is None
    loss.backward()
    assert len(seen) == 1


def test_no_teacher_pass_when_no_term_needs_it() -> None:
    """TRL #5726: the teacher ran although its weight was 0."""
    live = at_work(KdRecipe(lambda_kl=0.0).method(), Clock(0, 10))
    with live.targets(labelled(LABELS_N), live.active(Clock(0, 10))) as said:
        assert said == {}
    assert live.free_unneeded(Clock(0, 10)) == [], "it is not even built"


def test_end_of_sequence_counts_although_it_is_also_the_padding_token() -> None:
    """TRL #6357: positions were masked by the padding token's id, which in Whisper ends the sequence."""
    end = 8
    labels_BU = torch.tensor([[3, 4, end], [5, end, -100]])
    assert labelled(labels_BU).labels_N.tolist() == [3, 4, end, 5, end]


def test_vocabulary_mismatch_says_so() -> None:
    """TRL #6252: a teacher with another vocabulary (large-v3: 51 866) failed with an obscure error."""
    target = LogitsDistribution(torch.zeros(N, V + 1))
    with pytest.raises(ValueError, match=r"`teacher` has 12 tokens over 10 words, the student 12 tokens over 9"):
        loss_and_sums(HIDDEN_ND, WEIGHT_VD, LABELS_N, {"teacher": target}, [Kl()])
