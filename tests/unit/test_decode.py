"""Greedy decoding chooses the tokens that transformers' `generate` chooses.

B rows, M mel channels, F frames, P prefix tokens.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from raykd.evaluation.decode import Confidence, encode, greedy_decode

END, START, ENGLISH, TRANSCRIBE, NO_TIMESTAMPS = 50257, 50258, 50259, 50359, 50363
LANGUAGES = ["cs", "en", "pl", "uk", "hu", "ca", "de", "en"]


def lively(model: WhisperForConditionalGeneration, scale: float = 15.0) -> WhisperForConditionalGeneration:
    """Random weights of this scale make a model whose choice depends on the audio and on every earlier token."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
    return model.eval()


@pytest.fixture(scope="module")
def model(tiny_whisper_dir: Path) -> WhisperForConditionalGeneration:
    return lively(WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir, dtype=torch.float32))


@pytest.fixture(scope="module", name="mel_BMF")
def random_mel() -> torch.Tensor:
    return torch.randn(len(LANGUAGES), 80, 500, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", name="prefix_BP")
def prefixes(model: WhisperForConditionalGeneration) -> torch.Tensor:
    ids: dict[str, int] = getattr(model.generation_config, "lang_to_id")  # noqa: B009 (not declared by transformers)
    return torch.tensor([[START, ids[f"<|{language}|>"], TRANSCRIBE, NO_TIMESTAMPS] for language in LANGUAGES])


@pytest.fixture
def end_of_text(model: WhisperForConditionalGeneration, mel_BMF: torch.Tensor, prefix_BP: torch.Tensor) -> Iterator[int]:
    """A token that this model does say, at different times in different rows, as the end of text."""
    rows = greedy_decode(model, encode(model, mel_BMF), prefix_BP, 40, [END])
    token, count = Counter(token for row in rows for token in set(row)).most_common(1)[0]
    assert count >= 3
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = token
    yield token
    model.generation_config.eos_token_id = before


def generated(model: WhisperForConditionalGeneration, mel_BMF: torch.Tensor, end: int, **settings: Any) -> list[list[int]]:
    """The new tokens of `generate`, without its prefix and everything from the end of text on."""
    output = model.generate(mel_BMF, do_sample=False, num_beams=1, return_timestamps=False, pad_token_id=end, **settings)
    rows = [row[row.index(NO_TIMESTAMPS) + 1 :] if NO_TIMESTAMPS in row else row for row in output.tolist()]
    return [row[: row.index(end)] if end in row else row for row in rows]


def test_tokens_equal_generate_for_rows_of_many_languages_that_end_at_different_times(
    model: WhisperForConditionalGeneration, mel_BMF: torch.Tensor, prefix_BP: torch.Tensor, end_of_text: int
) -> None:
    rows = greedy_decode(model, encode(model, mel_BMF), prefix_BP, 30, [end_of_text])
    assert len({len(row) for row in rows}) >= 3
    assert rows == generated(model, mel_BMF, end_of_text, language=LANGUAGES, task="transcribe", max_new_tokens=30)


def test_rows_do_not_depend_on_their_batch(
    model: WhisperForConditionalGeneration, mel_BMF: torch.Tensor, prefix_BP: torch.Tensor, end_of_text: int
) -> None:
    together = greedy_decode(model, encode(model, mel_BMF), prefix_BP, 30, [end_of_text])
    singles = zip(mel_BMF.split(1), prefix_BP.split(1), strict=True)
    assert together == [greedy_decode(model, encode(model, mel), prefix, 30, [end_of_text])[0] for mel, prefix in singles]


def test_length_is_bounded_by_the_models_positions(
    model: WhisperForConditionalGeneration, mel_BMF: torch.Tensor, prefix_BP: torch.Tensor
) -> None:
    rows = greedy_decode(model, encode(model, mel_BMF), prefix_BP, 10_000, [END])
    assert max(len(row) for row in rows) == model.config.max_target_positions - prefix_BP.shape[1]


def test_suppressed_tokens_are_not_chosen(
    model: WhisperForConditionalGeneration, mel_BMF: torch.Tensor, prefix_BP: torch.Tensor
) -> None:
    first, *later = greedy_decode(model, encode(model, mel_BMF[:1]), prefix_BP[:1], 20, [END])[0]
    config = model.generation_config
    never, at_begin = config.suppress_tokens, config.begin_suppress_tokens
    try:
        config.suppress_tokens, config.begin_suppress_tokens = [*never, later[-1], 999_999], [*at_begin, first]
        row = greedy_decode(model, encode(model, mel_BMF[:1]), prefix_BP[:1], 20, [END])[0]
        expected = generated(model, mel_BMF[:1], END, language="cs", task="transcribe", max_new_tokens=20)[0]
    finally:
        config.suppress_tokens, config.begin_suppress_tokens = never, at_begin
    assert row[0] != first
    assert later[-1] not in row
    assert row == expected


def test_english_only_models_have_a_short_prefix() -> None:
    config = WhisperConfig(
        vocab_size=51864,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=100,
        max_target_positions=32,
    )
    torch.manual_seed(0)
    model = lively(WhisperForConditionalGeneration(config))
    model.generation_config = GenerationConfig(
        eos_token_id=50256,
        pad_token_id=50256,
        decoder_start_token_id=50257,
        no_timestamps_token_id=50362,
        is_multilingual=False,
        begin_suppress_tokens=[220, 50256],
        max_length=32,
    )
    mel_BMF = torch.randn(2, 80, 200)
    rows = greedy_decode(model, encode(model, mel_BMF), torch.tensor([[50257, 50362]] * 2), 12, [50256])
    output = model.generate(mel_BMF, do_sample=False, num_beams=1, max_new_tokens=12).tolist()
    assert rows == [row[-12:] for row in output]


def test_bfloat16_models_decode(tiny_whisper_dir: Path, mel_BMF: torch.Tensor, prefix_BP: torch.Tensor) -> None:
    model = lively(WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir, dtype=torch.bfloat16))
    rows = greedy_decode(model, encode(model, mel_BMF), prefix_BP, 5, [END])
    assert [len(row) for row in rows] == [5] * len(LANGUAGES)


def test_confidence_is_that_of_generate(
    model: WhisperForConditionalGeneration, mel_BMF: torch.Tensor, prefix_BP: torch.Tensor, end_of_text: int
) -> None:
    confidences = [Confidence() for _ in range(len(mel_BMF))]
    rows = greedy_decode(
        model, encode(model, mel_BMF), prefix_BP, 30, [end_of_text], confidences=confidences, no_speech_id=NO_TIMESTAMPS - 1
    )
    assert rows == greedy_decode(model, encode(model, mel_BMF), prefix_BP, 30, [end_of_text])
    for number, (row, confidence) in enumerate(zip(rows, confidences, strict=True)):
        chosen = [*row, end_of_text][:30]
        inputs_1T = torch.cat((prefix_BP[number], torch.tensor(chosen)))[None, :-1]
        with torch.no_grad():
            logits_TV = model(mel_BMF[number : number + 1], decoder_input_ids=inputs_1T).logits[0].double()
        assert confidence.no_speech_prob == pytest.approx(float(logits_TV[0].softmax(-1)[NO_TIMESTAMPS - 1]), rel=1e-3)
        ours_TV = logits_TV[prefix_BP.shape[1] - 1 :].clone()
        config = model.generation_config
        ours_TV[:, config.suppress_tokens or []] = -torch.inf
        ours_TV[0, config.begin_suppress_tokens or []] = -torch.inf
        wanted = ours_TV.log_softmax(-1).gather(1, torch.tensor(chosen)[:, None]).sum()
        assert confidence.log_prob == pytest.approx(float(wanted), rel=1e-3)
        assert confidence.tokens == len(row)
        assert confidence.avg_log_prob == confidence.log_prob / (len(row) + 1)


@pytest.mark.slow
def test_timestamps_are_those_of_generate(
    model: WhisperForConditionalGeneration, mel_BMF: torch.Tensor, prefix_BP: torch.Tensor
) -> None:
    generation = model.generation_config
    generation.update(no_timestamps_token_id=NO_TIMESTAMPS)
    rule = WhisperTimeStampLogitsProcessor(generation, begin_index=3)
    rows = greedy_decode(model, encode(model, mel_BMF), prefix_BP[:, :3], 20, [END], rule=rule)
    assert all(row[0] > NO_TIMESTAMPS for row in rows)
    compared = 0
    for number, row in enumerate(rows):
        output = model.generate(
            mel_BMF[number : number + 1],
            decoder_input_ids=prefix_BP[number : number + 1, :3],
            return_timestamps=True,
            max_new_tokens=20,
            do_sample=False,
            num_beams=1,
        )
        theirs = [token for token in output[0].tolist() if token not in (START, END, TRANSCRIBE, int(prefix_BP[number, 1]))]
        compared += len(theirs)
        assert row[: len(theirs)] == theirs  # it leaves a last sentence without an end away
    assert compared > 40
