"""Adversarial distillation: the attack, and a loss that has the mixture's gradient."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from raykd.config.schedule import ScheduleConfig
from raykd.data.batches import Batch
from raykd.parts.clock import Clock
from raykd.parts.recipes.akd import Adversarial, AkdRecipe, LiveAdversarial
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl

LABELS_BU = torch.tensor([[3, 4], [5, -100]])


def batch_of(mel_BMF: Tensor) -> Batch:
    return Batch(["a", "b"], ["cs", "cs"], mel_BMF, LABELS_BU.clamp(min=0), LABELS_BU, 1.0)


def test_each_value_moves_by_epsilon_against_the_student() -> None:
    weights_MF = torch.randn(4, 6, dtype=torch.float64)

    def loss(mel_BMF: Tensor) -> Tensor:
        return (mel_BMF.double() * weights_MF).sin().sum()

    def gradient(batch: Batch) -> Tensor:
        mel_BMF = batch.mel_BMF.detach().requires_grad_()
        return torch.autograd.grad(loss(mel_BMF), mel_BMF)[0]

    batch = batch_of(torch.randn(2, 4, 6))
    moved = LiveAdversarial(Adversarial(epsilon=0.01)).apply(batch, gradient, Clock(0, 10))
    torch.testing.assert_close((moved.mel_BMF - batch.mel_BMF).abs(), torch.full((2, 4, 6), 0.01), rtol=0, atol=1e-6)
    assert loss(moved.mel_BMF) > loss(batch.mel_BMF)
    assert moved.teacher_mel_BMF is batch.mel_BMF, "the teacher hears clean speech"
    torch.testing.assert_close(moved.labels_N, batch.labels_N)


def test_the_teacher_may_hear_the_same_and_epsilon_may_grow() -> None:
    config = Adversarial(epsilon=ScheduleConfig(start=0.0, end=1.0), teacher_hears="perturbed")
    batch = batch_of(torch.zeros(2, 4, 6))
    moved = LiveAdversarial(config).apply(batch, lambda given: torch.ones_like(given.mel_BMF), Clock(5, 10))
    torch.testing.assert_close(moved.mel_BMF, torch.full((2, 4, 6), 0.5))
    assert moved.teacher_mel_BMF is None, "targets hear what the student hears"


def test_an_input_before_it_is_kept_from_the_teacher_or_not() -> None:
    """Speech that another input changed, with a clean one for the targets: it stays theirs."""
    clean_BMF = torch.full((2, 4, 6), 7.0)
    batch = replace(batch_of(torch.zeros(2, 4, 6)), teacher_mel_BMF=clean_BMF)
    moved = LiveAdversarial(Adversarial()).apply(batch, lambda given: torch.ones_like(given.mel_BMF), Clock(0, 1))
    assert moved.teacher_mel_BMF is clean_BMF


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_two_terms_have_the_mixtures_gradient(alpha: float) -> None:
    """(1 - alpha) CE + alpha KL has the gradient of -sum((1 - alpha) label + alpha teacher) log p."""
    random = torch.Generator().manual_seed(1)
    student_NV, teacher_NV = torch.randn(2, 7, 9, generator=random, dtype=torch.float64)
    labels_N = torch.randint(9, (7,), generator=random)
    q_NV = (teacher_NV / 2).softmax(-1)
    student_NV.requires_grad_()
    log_p_NV = student_NV.log_softmax(-1)
    mixture_NV = (1 - alpha) * torch.nn.functional.one_hot(labels_N, 9).double() + alpha * q_NV
    (mixed_NV,) = torch.autograd.grad(-(mixture_NV * log_p_NV).sum(), student_NV, retain_graph=True)
    ce, kl = AkdRecipe(alpha=alpha).method().terms
    assert isinstance(ce, Ce)
    assert isinstance(kl, Kl)
    assert (kl.student_temperature, kl.target_temperature) == (1.0, 2.0)
    assert isinstance(ce.weight, float)
    assert isinstance(kl.weight, float)
    total = -ce.weight * log_p_NV.gather(1, labels_N[:, None]).sum() + kl.weight * (q_NV * (q_NV.log() - log_p_NV)).sum()
    torch.testing.assert_close(torch.autograd.grad(total, student_NV)[0], mixed_NV, rtol=0, atol=1e-12)
