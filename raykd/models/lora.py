"""Whisper with low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) by `peft`, in a form that its config describes."""

from typing import TYPE_CHECKING, Any

from transformers import WhisperConfig, WhisperForConditionalGeneration

from raykd.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig

LORA = "lora"
"""Key of a model's config: what `peft.LoraConfig` is given. Only while a student trains: what it gives away has the adapters
merged into its weights."""
ADAPTER = "default"


def lora_of(config: WhisperConfig) -> dict[str, Any] | None:
    """Of a model with adapters; None: it has none."""
    return getattr(config, LORA, None)


class WhisperWithLora(WhisperForConditionalGeneration):
    """A Whisper with the adapters that its config describes beside its weights."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        from peft import inject_adapter_in_model

        inject_adapter_in_model(lora_config(lora_of(config) or {}), self, adapter_name=ADAPTER)


def lora_config(section: dict[str, Any]) -> "LoraConfig":
    """`peft`'s own.

    Raises:
        UserError: it is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError("student.kind lora: peft is not installed; run `pip install 'raykd[lora]'`") from None
    return LoraConfig(**section)


def merged(model: WhisperForConditionalGeneration) -> WhisperForConditionalGeneration:
    """A plain Whisper whose weights are the model's with the adapters added."""
    from peft.tuners.lora import LoraLayer

    for _, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(module, name, child.get_base_layer())
    config = WhisperConfig.from_dict({key: value for key, value in model.config.to_dict().items() if key != LORA})
    plain = WhisperForConditionalGeneration(config)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain.eval()
