"""A student as the draft of its teacher (transformers' assisted generation): the text is the teacher's, token for token."""

from pathlib import Path
from typing import Any

import pytest
import torch

from raykd.models.whisper import load_whisper
from raykd.parts.students.layer_copy import LayerCopy

pytestmark = pytest.mark.slow


def test_the_text_is_the_teachers(tiny_whisper_dir: Path) -> None:
    teacher: Any = load_whisper(str(tiny_whisper_dir))
    with torch.no_grad():
        for parameter in teacher.model.decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)  # sure of itself, so that teacher and draft differ
    draft: Any = LayerCopy(decoder_layers=1).made(teacher, 0)
    random = torch.Generator().manual_seed(0)
    shape = (1, teacher.config.num_mel_bins, 2 * teacher.config.max_source_positions)
    texts = []
    for _ in range(3):
        mel_BMF = torch.randn(shape, generator=random)
        usual: dict[str, Any] = {"language": "cs", "task": "transcribe", "num_beams": 1, "max_new_tokens": 30}
        alone = teacher.generate(mel_BMF, **usual)
        helped = teacher.generate(mel_BMF, assistant_model=draft, **usual)
        assert alone.tolist() == helped.tolist()
        texts.append(alone.tolist())
        by_draft = draft.generate(mel_BMF, **usual)
        assert by_draft.tolist() != alone.tolist(), "the draft alone would say something else"
