"""A teacher whose vocabulary was cut, and others beside it that have theirs whole: all speak the student's tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raykd.data.batches import Batch, collate
from raykd.data.corpus import Corpus, read_utterances
from raykd.data.text import LabelEncoder
from raykd.data.token_map import TokenMap
from raykd.errors import UserError
from raykd.models.demo import demo_tokenizer
from raykd.models.masked_lm import check_same_vocabulary, new_masked_lm, save_masked_lm
from raykd.models.pruning import prune_tokenizer, prune_whisper, tokens_to_keep
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.targets.learning import LearningWhisper
from raykd.parts.targets.mlm import MlmTarget
from raykd.parts.targets.whisper import WhisperTarget
from raykd.parts.worker import Worker
from tests.corpora import speech_format

pytestmark = pytest.mark.slow


@pytest.fixture
def kept(tiny_whisper_dir: Path, numbers: Corpus) -> list[int]:
    tokenizer = load_processor(str(tiny_whisper_dir)).tokenizer
    used = {token for text in numbers.index("train").texts for token in tokenizer.encode(" " + text)}
    return tokens_to_keep(tokenizer, used)


@pytest.fixture
def cut_dir(tiny_whisper_dir: Path, kept: list[int], tmp_path: Path) -> Path:
    """The tiny Whisper with the tokens of its corpus alone."""
    model, processor = load_whisper(str(tiny_whisper_dir)), load_processor(str(tiny_whisper_dir))
    prune_whisper(model, kept)
    processor.tokenizer = prune_tokenizer(processor.tokenizer, kept)
    save_whisper(model, processor, str(tmp_path / "cut"))
    return tmp_path / "cut"


@pytest.fixture
def mlm_dir(tmp_path: Path) -> Path:
    tokenizer = demo_tokenizer()
    tokenizer.save_pretrained(tmp_path / "mlm")
    save_masked_lm(new_masked_lm(len(tokenizer), 8, 2, tokenizer.get_vocab()["<|uz|>"], 0), str(tmp_path / "mlm"))
    return tmp_path / "mlm"


@pytest.fixture
def batch(numbers: Corpus, tiny_whisper_dir: Path, kept: list[int]) -> Batch:
    rows = read_utterances(numbers.path, numbers.index("train"), np.arange(3))
    tokens = TokenMap.of(speech_format(tiny_whisper_dir), kept)
    assert tokens is not None
    return collate([tokens.utterance(row) for row in rows], 500, tokens.pad_id)


def test_a_cut_student_has_cut_and_whole_teachers(
    cut_dir: Path, tiny_whisper_dir: Path, mlm_dir: Path, kept: list[int], batch: Batch
) -> None:
    on = Worker(torch.device("cpu"), WhisperLearner(load_whisper(str(cut_dir))), LabelEncoder(str(cut_dir)), lambda one: 0.0)
    assert on.kept_tokens == tuple(kept)
    targets = [
        WhisperTarget(model=str(cut_dir), dtype="float32"),
        WhisperTarget(model=str(tiny_whisper_dir), dtype="float32"),
        LearningWhisper(model=str(tiny_whisper_dir), trains="decoder", dtype="float32"),
        MlmTarget(model=str(mlm_dir)),
    ]
    said = [target.build(on).outputs(batch, frozenset(), {}).distribution for target in targets]
    whole = slice(0, len(batch.valid_N))
    log_p = [one.log_probs(whole, 1.0) for one in said if one is not None]
    assert {tuple(log_NV.shape) for log_NV in log_p} == {(len(batch.valid_N), len(kept))}
    torch.testing.assert_close(log_p[1], log_p[0])
    torch.testing.assert_close(log_p[2], log_p[0])


def test_a_language_model_of_the_whole_vocabulary_may_teach_a_cut_one(cut_dir: Path, mlm_dir: Path, tmp_path: Path) -> None:
    check_same_vocabulary(str(mlm_dir), str(cut_dir))
    config = (cut_dir / "config.json").read_text()
    first = '"kept_tokens": [\n    0,\n    1,'
    assert first in config
    (cut_dir / "config.json").write_text(config.replace(first, first.replace("1,", "2,")))
    with pytest.raises(UserError, match="speaks another vocabulary"):
        check_same_vocabulary(str(mlm_dir), str(cut_dir))
