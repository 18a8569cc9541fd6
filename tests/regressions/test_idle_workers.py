"""A worker without an utterance of a global batch, as at the end of an epoch: masked language models failed on its placeholder,
and a policy did not take part in what all workers have to do together.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from raykd.data.batches import Batch, placeholder
from raykd.data.corpus import Corpus, read_utterances
from raykd.models.masked_lm import new_masked_lm
from raykd.models.whisper import load_whisper
from raykd.parts.clock import Clock
from raykd.parts.recipes.rl_kd import Chosen
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.targets.mlm import MlmTarget, MlmTeacher
from raykd.parts.updates.selection import Selection
from raykd.parts.worker import Worker
from tests.terms import NOW


@pytest.fixture
def idle(numbers: Corpus) -> Batch:
    (utterance,) = read_utterances(numbers.path, numbers.index("train"), np.arange(1))
    return placeholder(utterance, 500, numbers.pad_id)


@pytest.mark.parametrize("positions", ["exact", "fast", "word"])
def test_a_masked_language_model_says_nothing(idle: Batch, positions: Literal["exact", "fast", "word"]) -> None:
    mlm = new_masked_lm(vocabulary=51_865, width=8, layers=2, mask_id=3, seed=0).eval()
    teacher = MlmTeacher(mlm, MlmTarget(model="unused", positions=positions), torch.zeros(51_865, dtype=torch.bool))
    said = teacher.outputs(idle, frozenset(), {}).distribution
    assert said is not None
    assert said.shape == (0, 51_865)


def test_a_policy_asks_for_the_student_as_all_workers_must(idle: Batch, tiny_whisper_dir: Path) -> None:
    asked = []

    class Asked(WhisperLearner):
        def current(self) -> Any:
            asked.append(True)
            return super().current()

    nothing: Any = None
    worker = Worker(torch.device("cpu"), Asked(load_whisper(str(tiny_whisper_dir))), nothing, lambda learner: 0.0)
    Selection(teachers=("teacher", "other"), warm_up=0.0).build(worker).before_step(idle, Clock(4, 10))
    assert asked, "under ZeRO 3 its weights are gathered from all of them"
    assert float(Chosen(teacher="other").total(nothing, {}, idle, NOW, None)) == 0
