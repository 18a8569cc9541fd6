"""A student that keeps the teacher's `alignment_heads` points at layers it does not have.

SYSTRAN/faster-whisper issue 1283: segmentation fault with word timestamps on a distilled model; Distil-Whisper's
`create_student_model.py` copies the teacher's generation config and only clears the forced ids.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration

from raykd.config.models import ScratchConfig
from raykd.models.demo import new_whisper
from raykd.parts.students.layer_copy import LayerCopy

DIMS = ScratchConfig(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=4, window_s=1.0, max_label_tokens=16)


@pytest.fixture
def teacher() -> WhisperForConditionalGeneration:
    model = new_whisper(DIMS, seed=0)
    generation: Any = model.generation_config
    generation.alignment_heads = [[1, 0], [1, 1], [3, 1]]
    return model


def heads_of(model: WhisperForConditionalGeneration) -> list[list[int]]:
    generation: Any = model.generation_config
    return generation.alignment_heads


def student_of(teacher: WhisperForConditionalGeneration, layers: tuple[int, ...]) -> WhisperForConditionalGeneration:
    return LayerCopy(decoder_layers=layers).make(teacher, seed=0)


def test_heads_of_kept_layers_get_their_new_numbers(teacher: WhisperForConditionalGeneration) -> None:
    assert heads_of(student_of(teacher, (0, 3))) == [[1, 1]]
    assert heads_of(student_of(teacher, (1, 2, 3))) == [[0, 0], [0, 1], [2, 1]]
    assert heads_of(student_of(teacher, (3, 1))) == [[0, 1], [1, 0], [1, 1]]
    assert heads_of(teacher) == [[1, 0], [1, 1], [3, 1]], "the teacher stays as it was"


def test_without_any_the_key_goes_also_from_the_saved_file(teacher: WhisperForConditionalGeneration, tmp_path: Path) -> None:
    student = student_of(teacher, (0, 2))
    assert not hasattr(student.generation_config, "alignment_heads")
    student.save_pretrained(tmp_path)
    assert not hasattr(GenerationConfig.from_pretrained(tmp_path), "alignment_heads")


def test_word_times_work_on_the_student(teacher: WhisperForConditionalGeneration) -> None:
    output = student_of(teacher, (0, 3)).generate(
        torch.randn(1, 80, 100), language="cs", task="transcribe", return_token_timestamps=True, num_frames=torch.tensor([100])
    )
    assert output["token_timestamps"].shape == output["sequences"].shape
