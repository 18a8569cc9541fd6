"""Whisper with language experts: the model, its folder, and experts that come and go.

    from raykd.models.experts import WhisperWithExperts
    model = WhisperWithExperts.from_pretrained(FOLDER)
    model.generate(input_features, language="cs")

What a layer does is in `models.routing`.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.activations import ACT2FN
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from raykd.models.routing import EXPERTS, Expert, LayerExperts, Routing, Stack, speaking


def expert_languages(config: WhisperConfig) -> tuple[str, ...]:
    """Languages that a model has experts for."""
    return tuple((getattr(config, EXPERTS, None) or {}).get("languages", ()))


class WhisperWithExperts(WhisperForConditionalGeneration):
    """A Whisper with experts for the languages that its config names."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        self.routing = Routing()
        stacks: dict[Stack, Any] = {"encoder": self.model.encoder, "decoder": self.model.decoder}
        for stack, module in stacks.items():
            module.routing = self.routing
            for layer in module.layers:
                layer.experts = LayerExperts(stack, self.routing)
                layer.fc1.register_forward_pre_hook(layer.experts.before)
                layer.fc2.register_forward_hook(layer.experts.after)
        for language in expert_languages(config):
            self.add_expert(language)

    def layers(self) -> Iterator[tuple[Stack, int, Any]]:
        """(stack, number, layer) of all layers."""
        stacks: dict[Stack, Any] = {"encoder": self.model.encoder, "decoder": self.model.decoder}
        for stack, module in stacks.items():
            for number, layer in enumerate(module.layers):
                yield stack, number, layer

    def add_expert(self, language: str, gate_width: int | None = None) -> None:
        """Give a language an expert in each layer, a copy of the layer's own block with gates drawn from N(0, init_std).

        Raises:
            ValueError: it has one.
        """
        config = self.config
        section = dict(getattr(config, EXPERTS, None) or {"languages": [], "gate_width": gate_width or 64})
        for _, _, layer in self.layers():
            if language in layer.experts:
                raise ValueError(f"there is an expert for {language} already")
            like = layer.fc1.weight
            expert = Expert(config.d_model, len(layer.fc1.bias), section["gate_width"], ACT2FN[config.activation_function])
            expert = expert.to(device=like.device, dtype=like.dtype)
            if not like.is_meta:
                expert.fc1.load_state_dict(layer.fc1.state_dict())
                expert.fc2.load_state_dict(layer.fc2.state_dict())
                for parameter in expert.gate.parameters():
                    nn.init.normal_(parameter, std=config.init_std)
                nn.init.zeros_(expert.gate.hidden.bias)
            layer.experts[language] = expert
        section["languages"] = list(dict.fromkeys([*section["languages"], language]))
        setattr(config, EXPERTS, section)

    def remove_expert(self, language: str) -> None:
        """Take a language's expert out: it goes through the shared blocks from then on.

        Raises:
            KeyError: it has none.
        """
        for _, _, layer in self.layers():
            del layer.experts[language]
        section = dict(getattr(self.config, EXPERTS))
        section["languages"] = [other for other in section["languages"] if other != language]
        setattr(self.config, EXPERTS, section)

    def generate(self, *arguments: Any, language: Any = None, task: str | None = None, **options: Any) -> Any:
        """transformers' `generate`, each utterance routed by its language: a code, a name or a token, or a list of them.

        Without a language, and for translation, the shared blocks work alone.
        """
        given = language if isinstance(language, list) else [language]
        spoken = [None if task == "translate" else language_code(one) for one in given]
        with speaking(self, spoken):
            options |= {"language": language, "task": task}
            return super().generate(*arguments, **options)


def with_experts(model: WhisperForConditionalGeneration) -> WhisperWithExperts:
    """The model as one that can have experts; itself where it can."""
    if isinstance(model, WhisperWithExperts):
        return model
    made = WhisperWithExperts(model.config)
    made.load_state_dict(model.state_dict())
    made.tie_weights()
    made.generation_config = model.generation_config
    made.eval()
    return made


def active_parameters(model: WhisperForConditionalGeneration) -> int | None:
    """That a token in a language with an expert passes at most: one block a layer, and that language's gate; None: all."""
    languages = expert_languages(model.config)
    if not languages:
        return None
    experts = {name: parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name}
    gates = sum(count for name, count in experts.items() if ".gate." in name)
    everything = sum(parameter.numel() for parameter in model.parameters())
    return everything - sum(experts.values()) + gates // len(languages)


def language_code(language: str | None) -> str | None:
    """`cs` of `cs`, `Czech` or `<|cs|>`."""
    if language is None:
        return None
    plain = language.lower().removeprefix("<|").removesuffix("|>")
    return TO_LANGUAGE_CODE.get(plain, plain)
