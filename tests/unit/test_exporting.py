"""Exports: what each program says of a student is what PyTorch says, and what cannot be done is refused."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from raykd import storage
from raykd.config.models import ScratchConfig
from raykd.errors import RunError, UserError
from raykd.exporting import ctranslate2, ggml, hf
from raykd.exporting.clips import Clip
from raykd.exporting.gate import Checked, as_json, export
from raykd.models.demo import demo_processor, new_whisper
from raykd.models.pruning import prune_tokenizer, prune_whisper, tokens_to_keep
from raykd.models.runtimes import Format, limits, refusal
from raykd.models.whisper import load_processor, load_whisper, read_config, save_whisper
from raykd.models.window import CLIP_MARGIN

pytestmark = pytest.mark.slow

WORDS = " jedna dva tři čtyři pět"


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    random = np.random.default_rng(0)
    noise = [0.2 * random.standard_normal(16_000 * seconds).astype(np.float32) for seconds in (2, 1, 3)]
    return [Clip(f"clip-{number}", "cs", "jedna dva", samples_S) for number, samples_S in enumerate(noise)]


def short_sentences(model: WhisperForConditionalGeneration) -> None:
    """Random weights never end a sentence; with this the end of text wins after a while, whatever was heard."""
    with torch.no_grad():
        end_D = model.proj_out.weight[100].flip(0)
        model.proj_out.weight[model.config.eos_token_id] = 2 * end_D
        model.model.decoder.embed_positions.weight[12:] += 40 * end_D / end_D.norm()


def make(folder: Path, prune: bool = False, margin: int | None = None, window_s: float = 30.0) -> str:
    layers = {"encoder_layers": 1, "decoder_layers": 3}
    dims = ScratchConfig(width=64, heads=2, ffn=256, window_s=window_s, max_label_tokens=448, **layers)
    model, processor = new_whisper(dims, seed=3), demo_processor(dims)
    short_sentences(model)
    if prune:
        kept = tokens_to_keep(processor.tokenizer, processor.tokenizer.encode(WORDS, add_special_tokens=False))
        prune_whisper(model, kept)
        processor.tokenizer = prune_tokenizer(processor.tokenizer, kept)
    setattr(model.config, CLIP_MARGIN, margin)
    save_whisper(model, processor, str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("small"), prune=True, margin=20)


@pytest.mark.parametrize("form", ["hf", "ctranslate2"])
def test_a_short_window_and_a_cut_vocabulary_go_where_they_can(
    form: Format, small: str, clips: list[Clip], tmp_path: Path
) -> None:
    """faster-whisper fills a window with zeros, which random weights hear as something else than silence."""
    found = export(small, str(tmp_path), form, "float32", clips, tolerance=100.0)
    checked = {(one.runtime, one.window): one for one in found}
    programs = {"hf": ["transformers"], "ctranslate2": ["CTranslate2", "faster-whisper"]}[form]
    assert checked.keys() == {(name, window) for name in programs for window in ("whole", "clip")}
    assert checked[programs[0], "clip"].differing_words == checked[programs[0], "whole"].differing_words == 0
    assert checked[programs[-1], "clip"].differing_words == 0
    assert json.loads(json.dumps(as_json(found)))[0]["runtime"] == programs[0]


@pytest.mark.parametrize("quantization", ["float16", "bfloat16"])
def test_transformers_computes_in_the_type_that_is_written(
    quantization: str, whole: str, clips: list[Clip], tmp_path: Path
) -> None:
    (one,) = export(whole, str(tmp_path), "hf", quantization, clips[:1], tolerance=100.0)
    assert one.computes_in == quantization
    (runtime,) = hf.runtimes(str(tmp_path), ("whole",), quantization)
    generate: Any = runtime.transcribe
    assert generate._model.dtype == getattr(torch, quantization)


def test_whisper_cpp_reads_what_is_written(whole: str, small: str, clips: list[Clip], tmp_path: Path) -> None:
    (one,) = export(whole, str(tmp_path / "a"), "ggml", "float16", clips)
    assert one.passed
    found = export(small, str(tmp_path / "b"), "ggml", "float16", clips, pad_vocabulary=True, whole_tokenizer=whole)
    assert [one.window for one in found] == ["whole", "clip"]


def test_a_difference_fails_and_shows_the_clip(
    whole: str, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converter that forgets a bias."""
    write = ggml._write

    def forgets(file: object, name: str, values: np.ndarray, quantization: str) -> None:
        write(file, name, 5 + 0 * values if name == "decoder.ln.bias" else values, quantization)  # type: ignore[arg-type]

    monkeypatch.setattr(ggml, "_write", forgets)
    told = r"(?s)whisper\.cpp, whole window: .* of the words differ .*clip-0\n    PyTorch: .*whisper"
    with pytest.raises(RunError, match=told):
        export(whole, str(tmp_path), "ggml", "float16", clips)


def test_what_cannot_be_done_is_told_and_refused(whole: str, small: str, clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--format ggml: .* whisper\.cpp would take its \d+ tokens for .*--pad-vocabulary"):
        export(small, str(tmp_path), "ggml", "float16", clips)
    with pytest.raises(UserError, match="--pad-vocabulary: give --tokenizer"):
        export(small, str(tmp_path), "ggml", "float16", clips, pad_vocabulary=True)
    with pytest.raises(UserError, match=r"--quantization: ctranslate2 has float32, int8, .*got q4"):
        export(whole, str(tmp_path), "ctranslate2", "q4", clips)
    demo = make(tmp_path / "demo", window_s=4.0)
    with pytest.raises(UserError, match="windows of 30 s only, and this model's has 4 s"):
        export(demo, str(tmp_path), "ggml", "float16", clips)
    told = limits(read_config(small))
    assert len(told) == 2
    assert "short ones" in told[0]
    assert "--pad-vocabulary" in told[1]
    assert not limits(read_config(whole))
    two = read_config(whole)
    two.decoder_layers = 2
    assert "no timestamps" in limits(two)[0]
    assert refusal(two, "ggml", False) is None


def test_eight_bits_are_near_and_in_blocks() -> None:
    values = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    values[0] = 0
    packed = np.frombuffer(ggml._eight_bits(values), np.dtype([("scale", np.float16), ("numbers", np.int8, 32)]))
    again = (packed["scale"].astype(np.float32)[:, None] * packed["numbers"]).reshape(values.shape)
    assert np.abs(again - values).max() < 0.02
    assert len(packed) == 8


def test_files_that_other_programs_look_for(whole: str, tmp_path: Path, clips: list[Clip]) -> None:
    export(whole, str(tmp_path), "ctranslate2", "float32", clips[:1], tolerance=100.0)
    wanted = {"model.bin", "tokenizer.json", "preprocessor_config.json", "config.json"}
    assert wanted <= {one.name for one in tmp_path.iterdir()}
    config = json.loads((tmp_path / "config.json").read_text())
    generation = load_whisper(whole).generation_config
    assert config["suppress_ids"] == generation.suppress_tokens
    assert len(config["lang_ids"]) == 99
    assert all(layer < 3 for layer, _ in config["alignment_heads"])
    extractor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert extractor["feature_size"] == load_processor(whole).feature_extractor.feature_size


def test_what_ctranslate2_converts_lies_where_a_kill_leaves_nothing(
    whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setattr(storage, "temporary_dir", lambda: nullcontext(str(here)))
    ctranslate2.convert(load_whisper(whole), load_processor(whole), str(tmp_path / "out"), "float32")
    assert (here / "model.safetensors").exists()


def test_a_result_knows_whether_it_passed() -> None:
    one = Checked("x", "whole", None, 0.1, 0.1, 0.02, 0.02, 1.0, 1.0, ())
    assert one.passed


def test_a_type_that_this_machine_does_not_have_is_computed_in_another(whole: str, clips: list[Clip], tmp_path: Path) -> None:
    found = export(whole, str(tmp_path), "ctranslate2", "float16", clips[:1], tolerance=100.0)
    assert [one.runtime for one in found] == ["CTranslate2", "faster-whisper"]
    assert {one.computes_in for one in found} <= {"float16", "float32"}


def test_a_program_that_is_not_installed_is_named(
    whole: str, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ggml, "PROGRAMS", ("no_such_program",))
    with pytest.raises(UserError, match=r"no_such_program is not installed; run `pip install 'raykd\[export\]'`"):
        export(whole, str(tmp_path), "ggml", "float16", clips)
    assert not list(tmp_path.iterdir())
