"""Workers that were to train a masked language model failed: they asked the job for a loss on dev that it has not."""

from typing import Any

import torch

from raykd.config import MlmRunConfig
from raykd.models.masked_lm import new_masked_lm
from raykd.parts.worker import Worker
from raykd.training.method import LiveMethod
from raykd.training.mlm_job import MlmJob
from tests.terms import NOW


def test_a_masked_language_model_needs_no_loss_on_dev_to_begin() -> None:
    tree = {"text": {"source": "demo", "language": "cs"}, "train": {"steps": 1}}
    nothing: Any = None
    job = MlmJob(
        config=MlmRunConfig.model_validate(tree),
        corpus=nothing,
        checkpoints="unused",
        trained_ids=None,
        teacher_hash="",
        model="unused",
    )
    learner = job.learner(new_masked_lm(vocabulary=20, width=8, layers=1, mask_id=19, seed=0))
    device = torch.device("cpu")
    live = LiveMethod(job.method, Worker(device, learner, nothing, job.dev_loss(0, 1, device)), NOW)
    assert [one.name for one in live.active(NOW)] == ["ce"]
    assert live.learners() == {}
