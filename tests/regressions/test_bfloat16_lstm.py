"""PyTorch has no bfloat16 LSTM on many CPUs, and failed where a masked language model was trained or taught in bfloat16."""

from pathlib import Path
from typing import Any

import torch

from raykd.data.batches import IGNORED_LABEL, TextBatch
from raykd.models.demo import demo_tokenizer
from raykd.models.masked_lm import new_masked_lm, save_masked_lm
from raykd.parts.targets.mlm import MlmTarget
from raykd.parts.terms.ce import Ce
from raykd.training.mlm_job import MlmLearner
from raykd.training.step import Step
from tests.terms import NOW, active, no_targets, worker


def test_training_in_bfloat16() -> None:
    learner = MlmLearner(new_masked_lm(vocabulary=60, width=16, layers=2, mask_id=59, seed=0))
    step = Step(learner, autocast=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(0, 59, (3, 9), generator=generator)
    lengths_B = torch.tensor([9, 5, 7])
    masked_BT = torch.arange(9) % 3 == torch.tensor([[0], [1], [2]])
    arguments: tuple[Any, ...] = (TextBatch([], tokens_BT, lengths_B, masked_BT), no_targets, active([Ce()]), NOW)
    expected, _ = Step(learner)(*arguments)
    loss, _ = step(*arguments)
    assert step.head.product_dtype == torch.bfloat16
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)
    gradients = [parameter.grad for parameter in step.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_teaching_in_bfloat16(tmp_path: Path) -> None:
    folder, tokenizer = str(tmp_path / "mlm"), demo_tokenizer()
    tokenizer.save_pretrained(folder)
    save_masked_lm(new_masked_lm(len(tokenizer), width=16, layers=2, mask_id=50_337, seed=0), folder)
    decoder_input_BU, labels_BU = torch.tensor([[50258, 400, 500]]), torch.tensor([[400, 500, IGNORED_LABEL]])
    for positions in ("exact", "fast", "word"):
        teacher = MlmTarget(model=folder, positions=positions, dtype="bfloat16").build(worker())
        assert teacher.model.norm.weight.dtype == torch.float32
        assert teacher.distribution(decoder_input_BU, labels_BU).hidden_ND.isfinite().all()
