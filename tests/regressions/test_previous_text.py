"""Beside `data.pack` a masked language model was asked about texts that began with the token for text of the window before."""

import torch

from raykd.models.masked_lm import new_masked_lm
from raykd.parts.targets.mlm import MlmTarget, MlmTeacher

START, BEFORE, END, PAD = 20, 21, 22, 23


def test_a_text_begins_at_its_start_token() -> None:
    mlm = new_masked_lm(vocabulary=24, width=8, layers=2, mask_id=19, seed=0).eval()
    teacher = MlmTeacher(mlm, MlmTarget(model="unused"), torch.zeros(24, dtype=torch.bool))
    alone = teacher.distribution(torch.tensor([[START, 1, 2, 3]]), torch.tensor([[1, 2, 3, END]]))
    after = teacher.distribution(
        torch.tensor([[BEFORE, 7, 8, START, 1, 2, 3, PAD]]), torch.tensor([[-100, -100, -100, 1, 2, 3, END, -100]])
    )
    assert torch.equal(after.hidden_ND, alone.hidden_ND)
