"""Loss and arg-max with gold prefixes, against plain logits of the whole batch.

B utterances, U label positions, S encoder positions, D width, V vocabulary.
"""

from pathlib import Path

import jiwer
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import WhisperForConditionalGeneration

from raykd.data.text import LabelEncoder
from raykd.evaluation.scoring import TeacherForced
from raykd.evaluation.teacher_forced import teacher_forced

TEXTS = ["pět korun", "zítra v pět hodin odpoledne na náměstí", "ano", "kup dvě vstupenky do divadla na sobotu večer", ""]


@pytest.fixture(scope="module")
def model(tiny_whisper_dir: Path) -> WhisperForConditionalGeneration:
    model = WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(15)
    return model.eval()


@pytest.fixture(scope="module")
def encoder(tiny_whisper_dir: Path) -> LabelEncoder:
    return LabelEncoder(str(tiny_whisper_dir))


@pytest.fixture(scope="module", name="states_BSD")
def encoder_states(model: WhisperForConditionalGeneration) -> torch.Tensor:
    mel_BMF = torch.randn(len(TEXTS), 80, 500, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.model.encoder(mel_BMF).last_hidden_state


def batch_of(encoder: LabelEncoder, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """decoder_input_BU and labels_BU."""
    rows = [encoder.encode(text, "cs") for text in texts]
    longest = max(map(len, rows)) - 1
    inputs = [row[:-1] + [encoder.pad_id] * (longest + 1 - len(row)) for row in rows]
    labels = [row[1:] + [-100] * (longest + 1 - len(row)) for row in rows]
    return torch.tensor(inputs), torch.tensor(labels)


@pytest.fixture(scope="module")
def forced(model: WhisperForConditionalGeneration, encoder: LabelEncoder, states_BSD: torch.Tensor) -> list[TeacherForced]:
    return teacher_forced(model, encoder, states_BSD, *batch_of(encoder, TEXTS))


def test_loss_and_arg_max_are_those_of_the_logits(
    model: WhisperForConditionalGeneration, encoder: LabelEncoder, states_BSD: torch.Tensor, forced: list[TeacherForced]
) -> None:
    decoder_input_BU, labels_BU = batch_of(encoder, TEXTS)
    assert (labels_BU >= 0).sum() > 64  # more than one chunk
    with torch.no_grad():
        logits_BUV = model(encoder_outputs=(states_BSD,), decoder_input_ids=decoder_input_BU).logits
    for row, utterance in enumerate(forced):
        tokens = int((labels_BU[row] >= 0).sum())
        assert utterance.tokens == tokens == len(encoder.encode(TEXTS[row], "cs")) - 1
        loss = cross_entropy(logits_BUV[row, :tokens], labels_BU[row, :tokens], reduction="sum")
        assert utterance.loss == pytest.approx(float(loss), rel=1e-5)
        likeliest = logits_BUV[row, :tokens].argmax(-1).tolist()
        assert utterance.hypothesis == encoder.decode(likeliest, keep_special=True)
    assert len({utterance.hypothesis for utterance in forced}) == len(TEXTS)


def test_texts_have_their_special_tokens_and_rates_count_them(encoder: LabelEncoder, forced: list[TeacherForced]) -> None:
    for text, utterance in zip(TEXTS, forced, strict=True):
        reference = f"<|cs|><|transcribe|><|notimestamps|> {text}<|endoftext|>"
        assert encoder.decode(encoder.encode(text, "cs")[1:], keep_special=True) == reference
        words = jiwer.process_words(reference, utterance.hypothesis)
        characters = jiwer.process_characters(reference, utterance.hypothesis)
        assert utterance.words.errors == words.substitutions + words.deletions + words.insertions
        assert utterance.characters.errors == characters.substitutions + characters.deletions + characters.insertions
        assert utterance.characters.length == len(reference)
        assert utterance.words.length == len(reference.split())


def test_a_row_does_not_depend_on_the_padding_of_its_batch(
    model: WhisperForConditionalGeneration, encoder: LabelEncoder, states_BSD: torch.Tensor, forced: list[TeacherForced]
) -> None:
    for row, text in enumerate(TEXTS):
        (alone,) = teacher_forced(model, encoder, states_BSD[row : row + 1], *batch_of(encoder, [text]))
        assert alone.hypothesis == forced[row].hypothesis
        assert alone.loss == pytest.approx(forced[row].loss, rel=1e-5)


def test_a_model_that_is_always_right_has_no_errors(encoder: LabelEncoder, model: WhisperForConditionalGeneration) -> None:
    decoder_input_BU, labels_BU = batch_of(encoder, TEXTS[:1])
    gold = labels_BU[0].tolist()
    right = _Parrot(model, gold)
    (utterance,) = teacher_forced(right, encoder, torch.zeros(1, 1, 1), decoder_input_BU, labels_BU)  # type: ignore[arg-type]
    assert (utterance.words.errors, utterance.characters.errors) == (0, 0)
    assert utterance.loss == pytest.approx(0, abs=1e-3)


class _Parrot:
    """Says given tokens at given positions with near certainty."""

    def __init__(self, model: WhisperForConditionalGeneration, tokens: list[int]) -> None:
        self.device = model.device
        self.model, self.tokens = self, tokens
        self.proj_out = torch.nn.Linear(len(tokens), model.config.vocab_size, bias=False)
        with torch.no_grad():
            self.proj_out.weight.zero_()
            for position, token in enumerate(tokens):
                self.proj_out.weight[token, position] = 50.0

    def decoder(self, **_: object) -> "_Parrot":
        self.last_hidden_state = torch.eye(len(self.tokens))[None]
        return self
