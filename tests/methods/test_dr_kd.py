"""DR-KD against a float64 reference of the authors' swap of logits."""

import pytest
import torch
from torch.nn import functional

from raykd.parts.distribution import LogitsDistribution
from raykd.parts.recipes.dr_kd import DrKdRecipe, RectifiedDistribution

N, V = 11, 13


def swapped(logits_NV: torch.Tensor, labels_N: torch.Tensor, gold_N: torch.Tensor | None) -> torch.Tensor:
    out_NV = logits_NV.clone()
    for token, label in enumerate(labels_N.tolist()):
        guess = int(logits_NV[token].argmax())
        if guess != label and (gold_N is None or gold_N[token]):
            out_NV[token, guess], out_NV[token, label] = logits_NV[token, label], logits_NV[token, guess]
    return out_NV


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_guess_and_label_change_places(temperature: float, mixed: bool) -> None:
    random = torch.Generator().manual_seed(0)
    logits_NV = torch.randn(N, V, generator=random, dtype=torch.float64) * 3
    labels_N = torch.randint(V, (N,), generator=random)
    labels_N[:3] = logits_NV[:3].argmax(-1)
    gold_N = torch.arange(N) % 3 > 0 if mixed else None
    rectified = RectifiedDistribution(LogitsDistribution(logits_NV), labels_N, gold_N)
    assert rectified.shape == (N, V)
    expected_NV = (swapped(logits_NV, labels_N, gold_N) / temperature).log_softmax(-1)
    for tokens in (slice(0, N), slice(4, 9)):
        torch.testing.assert_close(rectified.log_probs(tokens, temperature), expected_NV[tokens], rtol=0, atol=1e-12)
    right_N = rectified.log_probs(slice(0, N), 1.0).argmax(-1) == labels_N
    assert bool(right_N.all()) is not mixed


def test_the_teacher_itself_stays_as_it_is() -> None:
    logits_NV = torch.randn(N, V, dtype=torch.float64)
    teacher = LogitsDistribution(logits_NV)
    before_NV = teacher.log_probs(slice(0, N), 1.0)
    RectifiedDistribution(teacher, torch.zeros(N, dtype=torch.long)).log_probs(slice(0, N), 1.0)
    torch.testing.assert_close(teacher.log_probs(slice(0, N), 1.0), before_NV, rtol=0, atol=0)


def test_the_weights_are_the_notebooks_but_for_the_reduction() -> None:
    """The notebook: CE (1 - alpha) + KLDiv(mean over batch and classes) alpha multiplier; T squared is in the latter."""
    alpha, temperature, multiplier = 0.9, 4.0, 5.0
    ce, kl = DrKdRecipe(alpha=alpha, temperature=temperature, multiplier=multiplier).method().terms
    student_NV, teacher_NV = torch.randn(2, N, V, dtype=torch.float64)
    log_p_NV, q_NV = (student_NV / temperature).log_softmax(-1), (teacher_NV / temperature).softmax(-1)
    theirs = functional.kl_div(log_p_NV, q_NV, reduction="none").mean()
    per_token = functional.kl_div(log_p_NV, q_NV, reduction="batchmean")
    assert float(theirs) * V == pytest.approx(float(per_token))
    assert ce.weight == pytest.approx(1 - alpha)
    assert kl.weight == pytest.approx(alpha * multiplier)
