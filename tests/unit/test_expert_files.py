"""Experts as files: the size of an expert, into the right base alone, and as a plain Whisper where that is exact."""

from pathlib import Path
from typing import Any

import pytest
import torch

from raykd.errors import UserError
from raykd.models.expert_files import load_expert, plain_whisper, save_expert
from raykd.models.experts import active_parameters, expert_languages, with_experts
from raykd.models.whisper import load_whisper
from tests.unit.test_experts import hidden, inputs, made


def parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_files_of_two_languages_make_one_model(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    both = made(tiny_whisper_dir).float()
    base = load_whisper(str(tiny_whisper_dir))
    for language in ("cs", "de"):
        save_expert(both, language, str(tmp_path / f"{language}.safetensors"))
    own = (parameters(both) - parameters(base)) // 2
    assert (tmp_path / "cs.safetensors").stat().st_size == pytest.approx(4 * own, rel=0.1)
    model = with_experts(base)
    assert load_expert(model, str(tmp_path / "de.safetensors")) == "de"
    load_expert(model, str(tmp_path / "cs.safetensors"))
    assert expert_languages(model.config) == ("de", "cs")
    mel_BMF, ids_BU = inputs(model)
    with torch.no_grad():
        spoken = ["cs", "de", "en"]
        expected = hidden(both, spoken, mel_BMF.float(), ids_BU)
        assert torch.equal(hidden(model, spoken, mel_BMF.float(), ids_BU), expected)
        model.remove_expert("de")
        assert expert_languages(model.config) == ("cs",)
        left = hidden(model, spoken, mel_BMF.float(), ids_BU)
        torch.testing.assert_close(left[0], expected[0], rtol=1e-4, atol=1e-5)
        alone = hidden(model, [None] * 3, mel_BMF.float(), ids_BU)
        torch.testing.assert_close(left[1], alone[1], rtol=1e-4, atol=1e-5)


def test_a_file_goes_into_its_own_base_alone_and_once(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    model, path = made(tiny_whisper_dir).float(), str(tmp_path / "cs.safetensors")
    save_expert(model, "cs", path)
    with pytest.raises(UserError, match="has an expert for cs already"):
        load_expert(model, path)
    other = with_experts(load_whisper(str(tiny_whisper_dir)))
    with torch.no_grad():
        other.model.decoder.layer_norm.bias.add_(1)
    with pytest.raises(UserError, match="another base model"):
        load_expert(other, path)
    with pytest.raises(UserError, match=r"no expert for it \(it has cs, de\)"):
        save_expert(model, "pl", path)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"broken\.safetensors: cannot be read as safetensors"):
        load_expert(other, str(tmp_path / "broken.safetensors"))
    with pytest.raises(UserError, match="holds no experts"):
        load_expert(other, str(tiny_whisper_dir / "model.safetensors"))


def test_as_a_plain_whisper_where_no_gate_decides(tiny_whisper_dir: Path) -> None:
    model = made(tiny_whisper_dir).float()
    mel_BMF, ids_BU = inputs(model)
    with pytest.raises(UserError, match=r"3 of its 3 gates for cs send each token its own way"):
        plain_whisper(model, "cs")
    with pytest.raises(UserError, match="there is no expert for pl"):
        plain_whisper(model, "pl")
    with torch.no_grad():
        for _, _, layer in model.layers():
            layer.experts["cs"].gate.out.weight.abs_()
        always, base = plain_whisper(model, "cs"), plain_whisper(model, None)
        said = always.model(input_features=mel_BMF.float(), decoder_input_ids=ids_BU).last_hidden_state
        torch.testing.assert_close(said, hidden(model, ["cs"] * 3, mel_BMF.float(), ids_BU), rtol=1e-4, atol=1e-5)
        said = base.model(input_features=mel_BMF.float(), decoder_input_ids=ids_BU).last_hidden_state
        assert torch.equal(said, hidden(model, ["en"] * 3, mel_BMF.float(), ids_BU))
    assert expert_languages(always.config) == ()


def test_what_a_token_passes_is_the_base_and_a_gate(tiny_whisper_dir: Path) -> None:
    model, base = made(tiny_whisper_dir), load_whisper(str(tiny_whisper_dir))
    gates = 3 * (32 * 8 + 8 + 8)
    assert active_parameters(model) == parameters(base) + gates
    assert active_parameters(base) is None
