"""One language's experts as a file of their own, and as a plain Whisper where that is exact.

A file holds the language's blocks and gates of all layers (`encoder.layers.0.fc1.weight`, `encoder.layers.0.gate.out.weight`,
...) and says which base model they stand beside: it is several times smaller than the model, and goes into any copy of it.

    model = with_experts(load_whisper("openai/whisper-small"))
    load_expert(model, "cs.safetensors")
    load_expert(model, "hu.safetensors")
    model.remove_expert("hu")
"""

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from raykd import storage
from raykd.errors import UserError
from raykd.models.experts import WhisperWithExperts, expert_languages
from raykd.models.routing import EXPERTS
from raykd.models.state import state_hash

_FORMAT = "raykd-expert"


def save_expert(model: WhisperWithExperts, language: str, path: str) -> None:
    """Write one language's experts, local or to any pyarrow filesystem.

    Raises:
        UserError: the model has none for the language.
    """
    if language not in expert_languages(model.config):
        raise UserError(
            f"{language}: the model has no expert for it (it has {', '.join(expert_languages(model.config)) or 'none'})"
        )
    tensors = {
        f"{stack}.layers.{number}.{name}": tensor.detach().to("cpu").contiguous()
        for stack, number, layer in model.layers()
        for name, tensor in layer.experts[language].state_dict().items()
    }
    section = getattr(model.config, EXPERTS)
    facts = {
        "format": _FORMAT,
        "language": language,
        "gate_width": str(section["gate_width"]),
        "base": base_hash(model),
    }
    storage.write_bytes(path, save(tensors, metadata=facts))


def load_expert(model: WhisperWithExperts, path: str) -> str:
    """Put the experts of a file into a model; their language.

    Raises:
        UserError: no such file, no experts, those of another base model, or the language has some already.
    """
    facts, tensors = _read(path)
    language, gate_width = facts["language"], int(facts["gate_width"])
    if language in expert_languages(model.config):
        raise UserError(f"{path}: the model has an expert for {language} already; call remove_expert first")
    if facts["base"] != base_hash(model):
        raise UserError(f"{path}: stands beside another base model; load it into the one that it was trained on")
    section = getattr(model.config, EXPERTS, None)
    if section and section["gate_width"] != gate_width:
        raise UserError(
            f"{path}: has gates of width {gate_width}, the model's are {section['gate_width']} wide; a model's are all the same"
        )
    model.add_expert(language, gate_width)
    for stack, number, layer in model.layers():
        prefix = f"{stack}.layers.{number}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        try:
            layer.experts[language].load_state_dict(own)
        except RuntimeError:
            model.remove_expert(language)
            raise UserError(f"{path}: its experts of {prefix.rstrip('.')} do not fit the model's layer") from None
    return language


def base_hash(model: WhisperForConditionalGeneration) -> str:
    """Of the weights that are no expert's: what an expert file stands beside."""
    return state_hash(model, [name for name, _ in model.named_parameters() if ".experts." not in name])


def plain_whisper(model: WhisperForConditionalGeneration, language: str | None) -> WhisperForConditionalGeneration:
    """A Whisper without gates that says the same, for programs that know none: in a language, or in all that have no expert.

    Without a language it is the base model, and exact. With one it is exact only where no gate of it ever decides: where every
    output weight w2 is 0 or more, G = w2 ReLU(...) is never below 0 and every token goes through the expert, which then takes
    the shared block's place. Any other gate looks at the token, which no plain block can.

    Raises:
        UserError: there is no such expert, or its gates decide.
    """
    experts: Any = model
    if language is not None and language not in expert_languages(model.config):
        known = ", ".join(expert_languages(model.config)) or "none"
        raise UserError(f"there is no expert for {language} (there are {known}); name one, or none for the base model alone")
    deciding = 0
    for _, _, layer in experts.layers() if language is not None else ():
        deciding += bool((layer.experts[language].gate.out.weight < 0).any())
    if deciding:
        total = len(list(experts.layers()))
        raise UserError(
            f"{deciding} of its {total} gates for {language} send each token its own way, which a model without gates cannot; "
            "export it as hf (loaded by raykd.models.experts) or as experts, or the base model alone with --expert none"
        )
    config = type(model.config).from_dict({key: value for key, value in model.config.to_dict().items() if key != EXPERTS})
    config.architectures = ["WhisperForConditionalGeneration"]
    plain = WhisperForConditionalGeneration(config)
    state: dict[str, Tensor] = {name: value for name, value in model.state_dict().items() if ".experts." not in name}
    if language is not None:
        for stack, number, layer in experts.layers():
            for name, value in layer.experts[language].state_dict().items():
                if not name.startswith("gate."):
                    state[f"model.{stack}.layers.{number}.{name}"] = value
    plain.load_state_dict(state)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain.to(model.dtype).eval()  # type: ignore[arg-type]


def _read(path: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        data = storage.read_bytes(path)
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        facts = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({' '.join(str(error).split())})") from None
    if facts.get("format") != _FORMAT:
        raise UserError(f"{path}: holds no experts; give a file that `raykd.models.expert_files.save_expert` wrote")
    return facts, tensors
