"""Language experts: layers against a plain float64 reference, untouched languages, files, and training's draws."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from raykd.models.experts import WhisperWithExperts, expert_languages, with_experts
from raykd.models.routing import keep_rows, speaking
from raykd.models.whisper import load_processor, load_whisper, save_whisper

B, S, U = 3, 20, 6


def made(folder: Path, languages: Sequence[str] = ("cs", "de")) -> Any:
    """In float64, its experts unlike the shared blocks and its gates of both minds."""
    model = with_experts(load_whisper(str(folder))).double()
    torch.manual_seed(1)
    for language in languages:
        model.add_expert(language, 8)
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def inputs(model: Any) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    config = model.config
    return (
        torch.randn(B, config.num_mel_bins, 2 * config.max_source_positions, dtype=torch.float64),
        torch.randint(0, 1000, (B, U)),
    )


def hidden(model: Any, languages: Sequence[str | None], mel_BMF: Tensor, ids_BU: Tensor) -> Tensor:
    with speaking(model, languages):
        return model.model(input_features=mel_BMF, decoder_input_ids=ids_BU).last_hidden_state


class PlainBlock(nn.Module):
    """What a layer should do with one utterance's language, computing both blocks."""

    def __init__(self, layer: Any, language: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = layer.fc1, layer.fc2
        expert = layer.experts[language]
        self.expert, self.gate = expert, expert.gate

    def forward(self, x_BTD: Tensor) -> Tensor:
        shared = nn.functional.linear(
            nn.functional.gelu(nn.functional.linear(x_BTD, self.fc1.weight, self.fc1.bias)), self.fc2.weight, self.fc2.bias
        )
        expert = self.expert
        own = nn.functional.linear(
            nn.functional.gelu(nn.functional.linear(x_BTD, expert.fc1.weight, expert.fc1.bias)),
            expert.fc2.weight,
            expert.fc2.bias,
        )
        gate = torch.relu(x_BTD @ self.gate.hidden.weight.T + self.gate.hidden.bias) @ self.gate.out.weight.T
        return torch.where(gate >= 0, own, shared)


def plain(model: Any, language: str) -> Any:
    """The same Whisper with its blocks replaced, no hooks: the activation between `fc1` and `fc2` becomes the whole block."""
    model = copy.deepcopy(model)
    for _, _, layer in model.layers():
        layer.activation_fn = PlainBlock(layer, language)
        layer.fc1, layer.fc2 = nn.Identity(), nn.Identity()
    return model


def test_each_utterance_goes_through_its_languages_experts(tiny_whisper_dir: Path) -> None:
    model = made(tiny_whisper_dir)
    mel_BMF, ids_BU = inputs(model)
    with torch.no_grad():
        together = hidden(model, ["cs", "en", "de"], mel_BMF, ids_BU)
        base = load_whisper(str(tiny_whisper_dir)).double()
        expected = [
            plain(model, "cs").model(input_features=mel_BMF[:1], decoder_input_ids=ids_BU[:1]).last_hidden_state,
            base.model(input_features=mel_BMF[1:2], decoder_input_ids=ids_BU[1:2]).last_hidden_state,
            plain(model, "de").model(input_features=mel_BMF[2:], decoder_input_ids=ids_BU[2:]).last_hidden_state,
        ]
    torch.testing.assert_close(together, torch.cat(expected), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        shared = base.model(input_features=mel_BMF, decoder_input_ids=ids_BU).last_hidden_state
    assert (together[0] - shared[0]).abs().max() > 1e-2, "the experts do something"


@pytest.mark.parametrize("languages", [[], ["en"] * B, [None] * B, ["xx"] * B])
def test_without_a_known_language_it_is_the_base_model_bit_for_bit(
    tiny_whisper_dir: Path, languages: Sequence[str | None]
) -> None:
    model, base = made(tiny_whisper_dir).float(), load_whisper(str(tiny_whisper_dir))
    mel_BMF, ids_BU = inputs(model)
    with torch.no_grad():
        ours = hidden(model, languages, mel_BMF.float(), ids_BU)
        theirs = base.model(input_features=mel_BMF.float(), decoder_input_ids=ids_BU).last_hidden_state
        model.train()
        untrained = hidden(model, languages, mel_BMF.float(), ids_BU)
    assert torch.equal(ours, theirs)
    assert torch.equal(untrained, theirs)


def test_one_clip_decoded_token_by_token_says_the_same(tiny_whisper_dir: Path) -> None:
    model = made(tiny_whisper_dir)
    mel_BMF, ids_BU = inputs(model)
    with torch.no_grad(), speaking(model, ["cs"], watched=True) as gates:
        whole = model.model(input_features=mel_BMF[:1], decoder_input_ids=ids_BU[:1])
        expected = gates["decoder"].hard_BT
        cache, rows = None, []
        gates.pop("decoder")
        uses = []
        for position in range(U):
            said = model.model.decoder(
                input_ids=ids_BU[:1, position : position + 1],
                encoder_hidden_states=whole.encoder_last_hidden_state,
                past_key_values=cache,
                use_cache=True,
            )
            cache = said.past_key_values
            rows.append(said.last_hidden_state)
            uses.append(gates.pop("decoder").hard_BT)
    torch.testing.assert_close(torch.cat(rows, 1), whole.last_hidden_state, rtol=1e-9, atol=1e-9)
    assert isinstance(expected, Tensor)
    assert torch.equal(torch.cat(uses, 1), expected)  # type: ignore[arg-type]
    assert 0 < float(expected.sum()) < 2 * U, "tokens went both ways"


def test_a_token_costs_one_block(tiny_whisper_dir: Path) -> None:
    model = made(tiny_whisper_dir)
    counted = {"shared": 0, "expert": 0}
    for _, _, layer in model.layers():
        layer.fc2.register_forward_hook(lambda _, given, __: counted.update(shared=counted["shared"] + given[0].numel()))
        layer.experts["cs"].fc2.register_forward_hook(
            lambda _, given, __: counted.update(expert=counted["expert"] + given[0].numel())
        )
    mel_BMF, ids_BU = inputs(model)
    with torch.no_grad():
        hidden(model, ["cs"] * B, mel_BMF, ids_BU)
    config = model.config
    tokens = B * (config.max_source_positions * config.encoder_layers + U * config.decoder_layers)
    assert counted["shared"] + counted["expert"] == tokens * config.encoder_ffn_dim
    assert min(counted.values()) > 0


def test_training_mixes_by_the_gates_and_counts_them(tiny_whisper_dir: Path) -> None:
    model = made(tiny_whisper_dir).train()
    mel_BMF, ids_BU = inputs(model)
    layer = model.model.encoder.layers[0]
    seen: dict[str, Tensor] = {}
    layer.fc1.register_forward_hook(lambda _, given, __: seen.update(x=given[0]))
    layer.final_layer_norm.register_forward_hook(lambda _, __, output: seen.update(x=output))
    layer.fc2.register_forward_hook(lambda _, __, output: seen.update(mixed=output))
    with speaking(model, ["cs", None, "de"], watched=True) as gates:
        model.model(input_features=mel_BMF, decoder_input_ids=ids_BU)
    x = seen["x"]
    shared = nn.functional.linear(
        nn.functional.gelu(nn.functional.linear(x, layer.fc1.weight, layer.fc1.bias)), layer.fc2.weight
    )
    shared = shared + layer.fc2.bias
    for row, language in ((0, "cs"), (2, "de")):
        expert = layer.experts[language]
        own = nn.functional.gelu(x[row] @ expert.fc1.weight.T + expert.fc1.bias) @ expert.fc2.weight.T + expert.fc2.bias
        gate = torch.sigmoid(expert.gate(x[row]))[:, None]
        torch.testing.assert_close(seen["mixed"][row], gate * own + (1 - gate) * shared[row], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(seen["mixed"][1], shared[1], rtol=1e-9, atol=1e-9)
    assert {stack: record.layers for stack, record in gates.items()} == {
        "encoder": model.config.encoder_layers,
        "decoder": model.config.decoder_layers,
    }
    soft_BT = gates["encoder"].soft_BT
    assert isinstance(soft_BT, Tensor)
    assert soft_BT.shape == (B, model.config.max_source_positions)
    assert bool((soft_BT[1] == 0).all())
    assert bool((soft_BT[0] > 0).all())


def test_noise_dropout_and_skipping_are_trainings_alone(tiny_whisper_dir: Path) -> None:
    model = made(tiny_whisper_dir)
    mel_BMF, ids_BU = inputs(model)
    draws: dict[str, Any] = {"noise": 5.0, "gate_dropout": 0.1, "expert_dropout": 0.3, "skip": 0.5}

    def said(seed: int) -> Tensor:
        torch.manual_seed(seed)
        with torch.no_grad(), speaking(model, ["cs"] * B, **draws):
            return model.model(input_features=mel_BMF, decoder_input_ids=ids_BU).last_hidden_state

    assert torch.equal(said(0), said(1))
    model.train()
    assert not torch.equal(said(0), said(1))
    assert torch.equal(said(0), said(0))
    base = load_whisper(str(tiny_whisper_dir)).double()
    with torch.no_grad():
        shared = base.model(input_features=mel_BMF, decoder_input_ids=ids_BU).last_hidden_state
    draws = {"skip": 1.0}
    assert torch.equal(said(0), shared), "a layer that skips is the base model's"


def test_every_expert_has_a_gradient_whatever_is_in_the_batch(tiny_whisper_dir: Path) -> None:
    """Workers whose gradients are of other parameters would wait for each other for ever."""
    model = made(tiny_whisper_dir).train()
    mel_BMF, ids_BU = inputs(model)
    for languages, skip in ((["cs"] * B, 0.0), ([""] * B, 0.0), (["cs"] * B, 1.0)):
        model.zero_grad()
        with speaking(model, languages, watched=True, skip=skip) as gates:
            out = model.model(input_features=mel_BMF, decoder_input_ids=ids_BU).last_hidden_state
        (out.sum() + gates["encoder"].soft_BT.sum() + gates["decoder"].soft_BT.sum()).backward()  # type: ignore[union-attr]
        missing = [name for name, one in model.named_parameters() if ".experts." in name and one.grad is None]
        assert missing == []


def test_rows_that_end_leave_the_others_their_language(tiny_whisper_dir: Path) -> None:
    model = made(tiny_whisper_dir)
    mel_BMF, ids_BU = inputs(model)
    with torch.no_grad():
        expected = hidden(model, ["en", "de"], mel_BMF[1:], ids_BU[1:])
        with speaking(model, ["cs", "en", "de"]):
            keep_rows(model, [1, 2])
            ours = model.model(input_features=mel_BMF[1:], decoder_input_ids=ids_BU[1:]).last_hidden_state
        assert torch.equal(ours, expected)
        assert model.routing.languages == (), "the way it was is the way it is after"


def test_a_folder_loads_alone_and_as_the_base_model(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    model = made(tiny_whisper_dir).float()
    save_whisper(model, load_processor(str(tiny_whisper_dir)), str(tmp_path))
    mel_BMF, ids_BU = inputs(model)
    with torch.no_grad():
        expected = hidden(model, ["cs"] * B, mel_BMF.float(), ids_BU)
        for again in (load_whisper(str(tmp_path)), WhisperWithExperts.from_pretrained(tmp_path)):
            assert isinstance(again, WhisperWithExperts)
            assert expert_languages(again.config) == ("cs", "de")
            assert torch.equal(hidden(again, ["cs"] * B, mel_BMF.float(), ids_BU), expected)
        base: Any = WhisperForConditionalGeneration.from_pretrained(tmp_path)
        plain_base = load_whisper(str(tiny_whisper_dir))
        assert torch.equal(
            base.model(input_features=mel_BMF.float(), decoder_input_ids=ids_BU).last_hidden_state,
            plain_base.model(input_features=mel_BMF.float(), decoder_input_ids=ids_BU).last_hidden_state,
        )


def test_generate_routes_by_its_language_and_translates_with_the_base_model(tiny_whisper_dir: Path) -> None:
    model, base = made(tiny_whisper_dir).float(), load_whisper(str(tiny_whisper_dir))
    mel_BMF = inputs(model)[0].float()

    def said(who: Any, **options: Any) -> list[list[int]]:
        return who.generate(mel_BMF, max_new_tokens=5, **options).tolist()

    czech = said(model, language="czech", task="transcribe")
    assert czech != said(base, language="cs", task="transcribe")
    assert czech == said(model, language="<|cs|>", task="transcribe")
    assert said(model, language=["cs"] * B, task="transcribe", num_beams=2) == said(model, language="cs", num_beams=2)
    assert said(model, language="cs", task="translate") == said(base, language="cs", task="translate")
    assert said(model, language="en") == said(base, language="en")
