"""Loading and saving: any Whisper folder loads, and every mistake is one line that names the folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration

from raykd.errors import UserError
from raykd.models.demo import demo_tokenizer
from raykd.models.whisper import generation_config_for, load_processor, load_whisper, read_config, save_whisper, speech_format
from raykd.parts.students.layer_copy import LayerCopy


@pytest.fixture
def folder(tiny_whisper_dir: Path, tmp_path: Path) -> Path:
    """A Whisper folder that a test may damage."""
    return Path(shutil.copytree(tiny_whisper_dir, tmp_path / "whisper"))


def edit_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refusal(load: object, *arguments: object) -> str:
    assert callable(load)
    with pytest.raises(UserError) as refused:
        load(*arguments)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_loads_in_the_asked_type_ready_to_decode(tiny_whisper_dir: Path) -> None:
    model = load_whisper(str(tiny_whisper_dir), torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert load_whisper(str(tiny_whisper_dir)).dtype == torch.float32


def test_saving_and_loading_keeps_every_weight(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    model = load_whisper(str(tiny_whisper_dir))
    save_whisper(model, load_processor(str(tiny_whisper_dir)), str(tmp_path / "copy"))
    copy = load_whisper(str(tmp_path / "copy"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, copy.state_dict()[name]), name
    written = {file.name for file in (tmp_path / "copy").iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "preprocessor_config.json",
    } <= written


def test_speech_format_tells_mel_window_positions_and_tokenizer(tiny_whisper_dir: Path) -> None:
    wanted = speech_format(str(tiny_whisper_dir))
    assert (wanted.n_mels, wanted.window_frames, wanted.max_label_tokens) == (80, 500, 64)
    assert Path(wanted.tokenizer) == tiny_whisper_dir.absolute()


def test_a_folder_without_generation_config_still_decodes_by_language(folder: Path) -> None:
    complete = load_whisper(str(folder)).generation_config
    (folder / "generation_config.json").unlink()
    rebuilt = load_whisper(str(folder)).generation_config
    for key in ("lang_to_id", "task_to_id", "suppress_tokens", "begin_suppress_tokens", "no_timestamps_token_id", "max_length"):
        assert getattr(rebuilt, key) == getattr(complete, key), key


def test_a_missing_feature_extractor_is_made_from_the_config(folder: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink()
    extractor = load_processor(str(folder)).feature_extractor
    assert (extractor.feature_size, extractor.chunk_length) == (80, 5)


def test_a_folder_written_by_an_old_transformers_becomes_a_student_that_can_be_saved(folder: Path, tmp_path: Path) -> None:
    """The published checkpoints hold generation settings in config.json and other key names."""
    edit_config(
        folder,
        torch_dtype="float16",
        max_length=448,
        begin_suppress_tokens=[220, 50257],
        suppress_tokens=[1, 2, 7],
        forced_decoder_ids=[[1, 50259], [2, 50359], [3, 50363]],
        num_hidden_layers=1,
        transformers_version="4.27.0",
    )
    generation_file = folder / "generation_config.json"
    generation = json.loads(generation_file.read_text()) | {"forced_decoder_ids": [[1, None], [2, 50359]]}
    generation_file.write_text(json.dumps(generation))
    student = LayerCopy(decoder_layers=1).make(load_whisper(str(folder)), seed=0)
    save_whisper(student, load_processor(str(folder)), str(tmp_path / "student"))
    saved = (tmp_path / "student" / "config.json").read_text() + (tmp_path / "student" / "generation_config.json").read_text()
    assert "forced_decoder_ids" not in saved or '"forced_decoder_ids": null' in saved
    reloaded = load_whisper(str(tmp_path / "student"))
    assert reloaded.config.decoder_layers == 1
    assert reloaded.generation_config.suppress_tokens == generation["suppress_tokens"]


def test_english_only_models_have_no_languages_to_choose(folder: Path) -> None:
    edit_config(folder, vocab_size=51_864)
    generation: Any = generation_config_for(demo_tokenizer(), read_config(str(folder)))
    assert generation.is_multilingual is False
    assert not hasattr(generation, "lang_to_id")


def test_missing_folders_and_unreachable_models(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    assert refusal(load_whisper, gone).startswith(f"{gone}: no such folder; give ")
    assert "no such folder" in refusal(load_whisper, "runs/quickstart/student")
    for load in (load_whisper, load_processor, speech_format):
        message = refusal(load, "openai/no-such-whisper")
        assert message.startswith("openai/no-such-whisper: neither a local folder nor ")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert "is a file; give the folder" in refusal(load_whisper, str(file))


def test_a_folder_that_is_no_whisper(folder: Path, tmp_path: Path) -> None:
    assert "has no config.json" in refusal(load_whisper, str(tmp_path))
    edit_config(folder, model_type="wav2vec2")
    assert "is a wav2vec2 model, not a Whisper" in refusal(load_whisper, str(folder))
    edit_config(folder, model_type="whisper", d_model="wide")
    assert "config.json has an impossible value" in refusal(load_whisper, str(folder))
    (folder / "config.json").write_text("{")
    assert str(folder) in refusal(load_whisper, str(folder))


def test_missing_damaged_and_foreign_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = load_file(weights)
    some = {name: value for name, value in whole.items() if "decoder.layers.1." not in name}
    save_file(some, weights, metadata={"format": "pt"})
    message = refusal(load_whisper, str(folder))
    assert f"the weights lack {len(whole) - len(some)} tensors, such as model.decoder.layers.1." in message
    save_file(whole, weights, metadata={"format": "pt"})
    edit_config(folder, encoder_ffn_dim=128)
    assert "the weights do not fit config.json" in refusal(load_whisper, str(folder))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "damaged" in refusal(load_whisper, str(folder))
    weights.unlink()
    assert "no usable weights" in refusal(load_whisper, str(folder))


def test_missing_and_damaged_tokenizer_files(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refusal(load_processor, str(folder))
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer files of this model" in refusal(load_processor, str(folder))
    (folder / "tokenizer_config.json").unlink()
    assert "no tokenizer files of this model" in refusal(speech_format, str(folder))


def test_plain_transformers_reads_the_saved_weights(tiny_whisper_dir: Path) -> None:
    plain = WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir)
    ours = load_whisper(str(tiny_whisper_dir))
    assert torch.equal(plain.model.encoder.conv1.weight, ours.model.encoder.conv1.weight)
