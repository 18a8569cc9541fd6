"""Terms that users may write and the objective did not take: ones that do not look at the student, or that lack a target's
distribution; and a mask in float32 that rounded what float64 was computed with.
"""

import subprocess
import sys
from typing import Literal

import pytest
import torch
from torch import Tensor

from raykd.parts.distribution import LogitsDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import Chunk, TokenTerm
from raykd.training.objective import objective
from tests.terms import NOW, active, labelled, loss_and_sums

pytestmark = pytest.mark.slow

N, D, V = 6, 3, 5
GENERATOR = torch.Generator().manual_seed(0)
HIDDEN_ND, WEIGHT_VD, TARGET_NV = (
    torch.randn(*shape, generator=GENERATOR, dtype=torch.float64) for shape in ((N, D), (V, D), (N, V))
)
LABELS_BU = torch.arange(N).reshape(2, 3) % V


class Entropy(TokenTerm):
    """Of the teacher: a number to watch, with no gradient."""

    kind: Literal["entropy"] = "entropy"

    def targets(self) -> tuple[str, ...]:
        return ("teacher",)

    def values(self, at: Chunk) -> Tensor:
        target = at.target("teacher")
        return -(target.probs * target.log_NV).sum(-1)


def test_a_term_that_does_not_look_at_the_student_has_no_gradient() -> None:
    hidden_ND, targets = HIDDEN_ND.clone().requires_grad_(), {"teacher": LogitsDistribution(TARGET_NV)}
    loss, sums = loss_and_sums(hidden_ND, WEIGHT_VD, labelled(LABELS_BU), targets, [Entropy(), Kl()], 4)
    loss.backward()
    alone_ND = HIDDEN_ND.clone().requires_grad_()
    loss_and_sums(alone_ND, WEIGHT_VD, labelled(LABELS_BU), targets, [Kl()], 4)[0].backward()
    torch.testing.assert_close(hidden_ND.grad, alone_ND.grad)
    log_q_NV = TARGET_NV.log_softmax(-1)
    torch.testing.assert_close(sums["entropy"], -(log_q_NV.exp() * log_q_NV).sum())


def test_a_target_without_a_distribution_cannot_be_diverged_from() -> None:
    with pytest.raises(ValueError, match="no distribution for the target `teacher`"):
        objective(Outputs(hidden_ND=HIDDEN_ND), WEIGHT_VD, labelled(LABELS_BU), {"teacher": Outputs()}, active([Kl()]), NOW)


def test_a_mask_does_not_round_the_weight() -> None:
    gradients = []
    for sampled_B in (torch.tensor([False, True]), None):
        hidden_ND = HIDDEN_ND[: N if sampled_B is not None else 3].clone().requires_grad_()
        batch = labelled(LABELS_BU[: 2 if sampled_B is not None else 1], sampled_B)
        loss_and_sums(hidden_ND, WEIGHT_VD, batch, {}, [Ce(weight=1 / 3, contexts="gold")])[0].backward()
        assert hidden_ND.grad is not None
        gradients.append(hidden_ND.grad[:3])
    torch.testing.assert_close(*gradients, rtol=1e-14, atol=0)


def test_a_room_is_full_whoever_looks_into_it_first() -> None:
    """A recipe that was imported by itself knew no kind of term."""
    program = "from raykd.parts.recipes.terms import TermsRecipe; TermsRecipe.model_validate({'terms': ['kl'], 'mlm': 'm'})"
    subprocess.run([sys.executable, "-c", program], check=True)
