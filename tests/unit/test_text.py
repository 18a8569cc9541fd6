"""Labels carry Whisper's real prefix tokens, for both kinds of vocabulary."""

import json
import pickle
from pathlib import Path

import pytest
from transformers import WhisperTokenizer

from raykd.data.text import LabelEncoder, clean
from raykd.errors import UserError

SOT, CS, TRANSCRIBE, NO_TIMESTAMPS, EOT = 50258, 50283, 50359, 50363, 50257
"""Ids in the multilingual vocabulary of Whisper up to large-v2."""


@pytest.fixture(scope="module")
def encoder(tiny_whisper_dir: Path) -> LabelEncoder:
    return LabelEncoder(str(tiny_whisper_dir))


@pytest.fixture(scope="module")
def english_only(tmp_path_factory: pytest.TempPathFactory) -> LabelEncoder:
    """A tokenizer laid out as openai/whisper-tiny.en's: end of text is GPT-2's 50256, then come the special tokens."""
    folder = tmp_path_factory.mktemp("english-only")
    letters = {chr(code): code - 33 for code in range(33, 127)} | {"Ġ": 94}
    fillers = {f"filler{number}": number for number in range(95, 50256)}
    (folder / "vocab.json").write_text(json.dumps(letters | fillers | {"<|endoftext|>": 50256}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|startoftranscript|>", "<|en|>", "<|cs|>", "<|transcribe|>", "<|notimestamps|>"]}
    )
    tokenizer.save_pretrained(folder)
    return LabelEncoder(str(folder))


def test_multilingual_prefix_has_language_and_task(encoder: LabelEncoder) -> None:
    assert encoder.prefix("cs") == [SOT, CS, TRANSCRIBE, NO_TIMESTAMPS]
    ids = encoder.encode("dobrý den", "cs")
    assert ids[:4] == encoder.prefix("cs")
    assert ids[-1] == EOT
    assert EOT not in ids[:-1]


def test_english_only_prefix_has_neither(english_only: LabelEncoder) -> None:
    ids = english_only.encode("hi", "en")
    assert ids == [50257, 50261, 94, ord("h") - 33, ord("i") - 33, 50256]
    assert english_only.languages == {"en"}
    with pytest.raises(ValueError, match="'cs' is not a language"):
        english_only.encode("ahoj", "cs")


@pytest.mark.parametrize(
    ("text", "language"), [("Dobrý den, světe!", "cs"), ("it's 9:30", "en"), ("สวัสดี", "th"), ("你好", "zh")]
)
def test_text_survives_the_round_trip(encoder: LabelEncoder, text: str, language: str) -> None:
    assert encoder.decode(encoder.encode(text, language)) == text


def test_first_word_is_encoded_as_whisper_writes_it(encoder: LabelEncoder, tiny_whisper_dir: Path) -> None:
    tokenizer = WhisperTokenizer.from_pretrained(tiny_whisper_dir)
    assert encoder.encode("Hello", "en")[4:-1] == tokenizer(" Hello", add_special_tokens=False)["input_ids"]
    assert encoder.encode("你好", "zh")[4:-1] == tokenizer("你好", add_special_tokens=False)["input_ids"]


def test_token_names_in_a_transcript_are_text(encoder: LabelEncoder) -> None:
    ids = encoder.encode("a<|endoftext|>b", "en")
    assert EOT not in ids[:-1]
    assert max(ids[4:-1]) < EOT


def test_tokens_that_start_a_word_are_known(encoder: LabelEncoder) -> None:
    tokens = encoder.encode("nejneobhospodařovávatelnější slovo", "cs")
    starts = encoder.starts_word[tokens]
    assert starts[:4].all(), "the prefix"
    assert starts[-1], "the end of text"
    text = [encoder.decode([token]) for token in tokens[4:-1]]
    assert starts[4:-1].sum() == 2
    assert "".join(text).replace(" ", "") == "nejneobhospodařovávatelnějšíslovo"
    assert text[int(starts[5:-1].argmax()) + 1].startswith("s")


def test_unknown_language_is_refused(encoder: LabelEncoder) -> None:
    with pytest.raises(ValueError, match="'xx' is not a language"):
        encoder.encode("ahoj", "xx")


def test_pickled_encoder_is_small_and_equal(encoder: LabelEncoder) -> None:
    encoder.encode("ahoj", "cs")
    pickled = pickle.dumps(encoder)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert copy.encode("ahoj", "cs") == encoder.encode("ahoj", "cs")
    assert copy.fingerprint == encoder.fingerprint


def test_fingerprint_tells_vocabularies_apart(encoder: LabelEncoder, english_only: LabelEncoder) -> None:
    assert encoder.fingerprint != english_only.fingerprint


def test_missing_tokenizer_is_one_line_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere") as caught:
        LabelEncoder(str(tmp_path / "nowhere")).encode("ahoj", "cs")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffhello\tthere\r\n", "hello there"),
        ("hel\u00adlo \u202bworld\u202c\u200f", "hello world"),
        ("zero\u200bwi\u2060dth\x07\x1b", "zerowidth"),
        ("cafe\u200b\u0301", "caf\xe9"),
        ("line\x85line\x1cline\u2028line", "line line line line"),
        ("می\u200cروم ക്\u200d", "می\u200cروم ക്\u200d"),
        (None, ""),
    ],
)
def test_characters_that_nobody_sees_are_no_text(text: str | None, expected: str) -> None:
    assert clean(text) == expected
