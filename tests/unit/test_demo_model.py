"""New Whispers with the real vocabulary: ids, spelling, generation and loading without raykd."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

from raykd.config.models import ScratchConfig
from raykd.models.demo import SPOKEN_LANGUAGES, _byte_pairs, demo_processor, demo_tokenizer, new_whisper

DIMS = ScratchConfig(width=32, heads=2, ffn=64, encoder_layers=1, decoder_layers=2, window_s=5.0, max_label_tokens=64)

TEXTS = [
    "Příliš žluťoučký kůň úpěl ďábelské ódy, dvacátého třetího března 1968 v 17:45.",
    "Щастям б'єш жук їх глицю в фон й ґедзь пріч; двадцять п'ять градусів.",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "Zażółć gęślą jaźń",
    "The quick brown fox doesn't jump over 13 lazy dogs",
    "  spaces   and\nlines\t and 👩‍🚀 emoji ♪ 日本語のテキスト ",
    "",
]


@pytest.fixture(scope="module")
def openai_tokenizer() -> ModuleType:
    """`whisper/tokenizer.py` by itself: the package would import numba."""
    spec = importlib.util.find_spec("whisper")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / "tokenizer.py"
    module_spec = importlib.util.spec_from_file_location("openai_whisper_tokenizer", file)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules["openai_whisper_tokenizer"] = module
    module_spec.loader.exec_module(module)
    return module


def mel(seconds: float = 1.0) -> torch.Tensor:
    samples = np.random.default_rng(0).standard_normal(int(16_000 * seconds)).astype(np.float32) * 0.1
    return demo_processor(DIMS)(samples, sampling_rate=16_000, return_tensors="pt").input_features


@pytest.mark.parametrize(
    ("token", "index"),
    [
        ("<|endoftext|>", 50257),
        ("<|startoftranscript|>", 50258),
        ("<|en|>", 50259),
        ("<|cs|>", 50283),
        ("<|uk|>", 50280),
        ("<|uz|>", 50337),
        ("<|su|>", 50357),
        ("<|translate|>", 50358),
        ("<|transcribe|>", 50359),
        ("<|startoflm|>", 50360),
        ("<|startofprev|>", 50361),
        ("<|nocaptions|>", 50362),
        ("<|notimestamps|>", 50363),
        ("<|0.00|>", 50364),
        ("<|30.00|>", 51864),
    ],
)
def test_special_tokens_have_whispers_ids(token: str, index: int) -> None:
    assert demo_tokenizer().convert_tokens_to_ids(token) == index


@pytest.mark.parametrize("text", TEXTS)
def test_tokenises_as_openai_whisper(text: str, openai_tokenizer: ModuleType) -> None:
    theirs = openai_tokenizer.get_tokenizer(multilingual=True)
    ours = demo_tokenizer()
    assert ours.encode(text, add_special_tokens=False) == theirs.encode(text)
    assert ours.decode(ours.encode(text), skip_special_tokens=True) == text


def test_languages_and_suppressed_tokens_are_openai_whispers(openai_tokenizer: ModuleType) -> None:
    theirs = openai_tokenizer.get_tokenizer(multilingual=True)
    generation: Any = new_whisper(DIMS, seed=0).generation_config
    assert generation.lang_to_id == {f"<|{code}|>": theirs.to_language_token(code) for code in theirs.all_language_codes}
    tasks = [50258, 50358, 50359, 50360, 50361, 50362]
    assert generation.suppress_tokens == [*theirs.non_speech_tokens, *tasks]
    assert generation.begin_suppress_tokens == [220, 50257]


def test_same_seed_same_weights_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = new_whisper(DIMS, seed=1), new_whisper(DIMS, seed=1), new_whisper(DIMS, seed=2)
    assert torch.equal(torch.rand(3), expected)
    weights = [model.model.encoder.conv1.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_audio_enters_a_new_model_at_the_scale_of_the_positions() -> None:
    model = new_whisper(ScratchConfig(), seed=0)
    encoder = model.model.encoder
    with torch.no_grad():
        gelu = torch.nn.functional.gelu
        features = gelu(encoder.conv2(gelu(encoder.conv1(mel()))))
    ratio = features.square().mean().sqrt() / encoder.embed_positions.weight.square().mean().sqrt()
    assert 0.3 < ratio < 3


@pytest.mark.slow
def test_generates_for_a_language_within_its_positions() -> None:
    model = new_whisper(DIMS, seed=0)
    for language in ("cs", "th", "uz"):
        tokens = model.generate(mel(), language=language, task="transcribe")
        assert tokens.shape[1] <= DIMS.max_label_tokens


@pytest.mark.parametrize("dims", [{"width": 33}, {"width": 30, "heads": 4}, {"window_s": 4.5}])
def test_dimensions_that_no_whisper_has_are_refused_by_the_config(dims: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScratchConfig(**dims)


@pytest.mark.slow
def test_the_saved_folder_is_plain_transformers(tiny_whisper_dir: Path) -> None:
    processor = WhisperProcessor.from_pretrained(tiny_whisper_dir)
    assert processor.feature_extractor.chunk_length == 5
    assert len(processor.tokenizer) == 51_865
    for text in TEXTS:
        assert processor.tokenizer.encode(text) == demo_tokenizer().encode(text)
    assert processor.tokenizer.all_special_ids == demo_tokenizer().all_special_ids
    assert max(processor.tokenizer.all_special_ids) == 50_363, "transformers takes the id after it for the first timestamp"
    model = WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir)
    generation: Any = model.generation_config
    assert generation.lang_to_id["<|cs|>"] == 50_283
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    recognise: Any = pipeline("automatic-speech-recognition", model=str(tiny_whisper_dir))
    audio = {"raw": np.zeros(16_000, np.float32), "sampling_rate": 16_000}
    assert isinstance(recognise(audio, generate_kwargs={"language": "cs"})["text"], str)


def test_the_prefix_of_every_language_is_in_id_order() -> None:
    tokenizer = demo_tokenizer()
    for i, code in enumerate(SPOKEN_LANGUAGES):
        tokenizer.set_prefix_tokens(language=code, task="transcribe")
        assert tokenizer.encode("a")[:4] == [50_258, 50_259 + i, 50_359, 50_363]


@pytest.mark.slow
def test_the_whisper_package_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "whisper", raising=False)
    _byte_pairs.cache_clear()
    demo_tokenizer()
    assert "whisper" not in sys.modules, "importing it compiles numba code"
