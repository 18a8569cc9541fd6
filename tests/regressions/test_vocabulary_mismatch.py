"""Teacher and student of different vocabularies, mel channels or windows are refused before anything runs.

huggingface/trl issue 6252: a vocabulary mismatch gave an obscure shape error deep in the loss. For Whisper it can even be
silent: large-v3 has 51 866 tokens, one language more, so every later special token means something else.
"""

from pathlib import Path
from typing import Any

import pytest
from transformers import WhisperConfig

from raykd.config import Config
from raykd.config.models import ScratchConfig
from raykd.errors import UserError
from raykd.models.demo import demo_processor, new_whisper
from raykd.models.masked_lm import new_masked_lm, save_masked_lm
from raykd.models.pairs import check_compatible
from raykd.models.pruning import prune_tokenizer, prune_whisper, tokens_to_keep
from raykd.models.whisper import save_whisper
from raykd.preflight import check_run


def whisper(**values: Any) -> WhisperConfig:
    return WhisperConfig(**values)


def test_equal_formats_of_different_sizes_are_fine() -> None:
    check_compatible(whisper(d_model=1280, decoder_layers=32), whisper(d_model=384, decoder_layers=4))
    check_compatible(whisper(max_target_positions=448), whisper(max_target_positions=64))


@pytest.mark.parametrize(
    ("teacher", "student", "words"),
    [
        (whisper(vocab_size=51_866), whisper(vocab_size=51_865), "51866 vocabulary tokens, the student 51865: .*yue"),
        (whisper(num_mel_bins=128), whisper(num_mel_bins=80), "128 mel channels, the student 80"),
        (whisper(max_source_positions=1500), whisper(max_source_positions=250), "1500 encoder positions, the student 250"),
        (whisper(max_target_positions=64), whisper(max_target_positions=448), "448 label positions, the teacher only 64"),
    ],
)
def test_a_difference_is_explained_in_one_line(teacher: WhisperConfig, student: WhisperConfig, words: str) -> None:
    with pytest.raises(UserError, match=rf"^student: [^\n]*{words}[^\n]*$"):
        check_compatible(teacher, student)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["teacher", "target"])
def test_a_run_checks_its_teachers_before_it_starts(tmp_path: Path, where: str) -> None:
    dims = ScratchConfig(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=1, window_s=1.0)
    save_whisper(new_whisper(dims, seed=0), demo_processor(dims), str(tmp_path / "teacher"))
    teacher = {"model": str(tmp_path / "teacher")}
    tree: dict[str, Any] = {
        "data": {"source": "demo", "cache_dir": str(tmp_path / "cache")},
        "student": {"init": "scratch", "scratch": {**dims.model_dump(), "window_s": 2.0}},
        "objective": {"terms": [{"kind": "kl", "target": where}]},
        "train": {"steps": 1},
        "output_dir": str(tmp_path / "runs"),
    }
    if where == "teacher":
        tree["teacher"] = teacher
    else:
        tree["objective"]["targets"] = {"target": {"kind": "whisper", **teacher}}
    with pytest.raises(UserError, match="window"):
        check_run(Config.model_validate(tree), resume=False)
    tree["student"]["scratch"]["window_s"] = 1.0
    check_run(Config.model_validate(tree), resume=False)


@pytest.mark.slow
def test_a_student_with_some_of_the_tokens_of_a_masked_language_model_passes(tmp_path: Path) -> None:
    dims = ScratchConfig(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=1, window_s=1.0)
    model, processor = new_whisper(dims, seed=0), demo_processor(dims)
    mlm = new_masked_lm(model.config.vocab_size, 8, 2, 3, 0)
    kept = tokens_to_keep(processor.tokenizer, [])
    prune_whisper(model, kept)
    processor.tokenizer = prune_tokenizer(processor.tokenizer, kept)
    save_whisper(model, processor, str(tmp_path / "student"))
    save_masked_lm(mlm, str(tmp_path / "mlm"))
    tree = {
        "data": {"source": "demo", "cache_dir": str(tmp_path / "cache")},
        "student": {"init": str(tmp_path / "student")},
        "objective": {"recipe": "mlm_kd", "mlm": str(tmp_path / "mlm")},
        "train": {"steps": 1},
        "output_dir": str(tmp_path / "runs"),
    }
    check_run(Config.model_validate(tree), resume=False)
    save_masked_lm(new_masked_lm(100, 8, 2, 3, 0), str(tmp_path / "mlm"))
    with pytest.raises(UserError, match="has 100 tokens and the student 51865"):
        check_run(Config.model_validate(tree), resume=False)
