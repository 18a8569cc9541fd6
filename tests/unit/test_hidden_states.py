"""The hidden-state term against plain arithmetic in float64."""

import pytest
import torch

from raykd.errors import UserError
from raykd.parts.outputs import HIDDEN_STATES, Outputs
from raykd.parts.terms.hidden_states import HiddenStates
from tests.terms import NOW, labelled

LABELS_BU = torch.tensor([[3, 4, -100], [5, -100, -100]])
VALID = [(0, 0), (0, 1), (1, 0)]


def states(layers: int, width: int = 4, seed: int = 0) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    made = torch.randn(layers + 1, 2, 3, width, generator=random, dtype=torch.float64)
    return tuple(one.clone().requires_grad_() for one in made)


@pytest.mark.parametrize(("mine", "theirs", "heights"), [(2, 2, (0, 1, 2)), (1, 6, (0, 6)), (3, 12, (0, 4, 8, 12))])
def test_each_layer_against_the_one_at_its_height(mine: int, theirs: int, heights: tuple[int, ...]) -> None:
    student, teacher = states(mine), states(theirs, seed=1)
    targets = {"teacher": Outputs(auxiliary={HIDDEN_STATES: tuple(one.detach() for one in teacher)})}
    total = HiddenStates().total(Outputs(auxiliary={HIDDEN_STATES: student}), targets, labelled(LABELS_BU), NOW, None)
    expected = torch.zeros((), dtype=torch.float64)
    for layer, height in enumerate(heights):
        for row, position in VALID:
            difference_D = student[layer][row, position] - teacher[height][row, position].detach()
            expected = expected + (difference_D**2).sum() / 4 / len(heights)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(torch.autograd.grad(total, student), torch.autograd.grad(expected, student))


def test_other_widths_and_targets_without_states_are_refused() -> None:
    student = Outputs(auxiliary={HIDDEN_STATES: states(1)})
    targets = {"teacher": Outputs(auxiliary={HIDDEN_STATES: states(1, width=8)})}
    with pytest.raises(UserError, match="the width of `teacher` is 8, the student's is 4"):
        HiddenStates().total(student, targets, labelled(LABELS_BU), NOW, None)
    with pytest.raises(UserError, match="the target `mlm` has no decoder states"):
        HiddenStates(target="mlm").total(student, {"mlm": Outputs()}, labelled(LABELS_BU), NOW, None)
