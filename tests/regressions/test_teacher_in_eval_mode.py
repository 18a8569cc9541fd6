"""A teacher with dropout in its config was found by no test when it taught in training mode: published configs have none.

It says the same of the same batch, whatever is drawn at random.
"""

from pathlib import Path

import torch

from raykd.data.batches import Batch
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.targets.whisper import WhisperTarget
from raykd.parts.worker import Worker


def test_a_teacher_with_dropout_does_not_drop(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    model = load_whisper(str(tiny_whisper_dir))
    model.config.dropout = model.config.attention_dropout = model.config.activation_dropout = 0.5
    save_whisper(model, load_processor(str(tiny_whisper_dir)), str(tmp_path))
    nothing: object = None
    learner = WhisperLearner(load_whisper(str(tiny_whisper_dir)))
    on = Worker(torch.device("cpu"), learner, nothing, lambda learner: 0.0)  # type: ignore[arg-type]
    teacher = WhisperTarget(model=str(tmp_path), dtype="float32").loaded(on)
    mel_BMF = torch.randn(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    labels_BU = torch.tensor([[5, 6, 7]])
    said = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        distribution = teacher.outputs(Batch(["a"], ["cs"], mel_BMF, labels_BU, labels_BU, 1.0), frozenset(), {}).distribution
        assert distribution is not None
        said.append(distribution.log_probs(slice(0, 3), 1.0))
    torch.testing.assert_close(said[0], said[1], rtol=0, atol=0)
