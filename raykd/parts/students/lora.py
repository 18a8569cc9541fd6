"""A student that learns low-rank adapters alone."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from raykd.parts.students.pretrained import Pretrained

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


class Lora(Pretrained):
    """A Whisper with low-rank adapters (Hu et al. 2021, arXiv 2106.09685; `peft`), which alone train. The student that is given
    away has them merged into its weights: a plain Whisper of the same speed.

    The defaults are the baseline of Multilingual DistilWhisper (naver/multilingual-distilwhisper `model/train_lora.py`), which
    is put on plain Whisper here; as released it goes through a loader that inserts experts first. The adapters start from
    peft's own initialisation, which changes nothing (B = 0). `freeze_encoder` says nothing here.
    """

    kind: Literal["lora"] = "lora"  # type: ignore[assignment]
    r: int = Field(64, ge=1)
    """Rank."""
    alpha: float = Field(64.0, gt=0)
    """The adapters' part is multiplied by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Of their input."""
    modules: Annotated[tuple[str, ...], Field(min_length=1)] = ("fc1", "fc2")
    """Names of the linear layers that get one, in encoder and decoder: fc1, fc2, q_proj, k_proj, v_proj, out_proj."""

    def started_from(self) -> str:
        """The model."""
        return f"{self.model} with adapters of rank {self.r}"

    def make(self, teacher: "WhisperForConditionalGeneration | None", seed: int) -> "WhisperForConditionalGeneration":
        """See `Student`.

        Raises:
            UserError: there are no such layers.
        """
        import torch

        from raykd.errors import UserError
        from raykd.models.lora import LORA, WhisperWithLora, lora_config

        base = super().make(teacher, seed)
        linear = {name.rsplit(".", 1)[-1] for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
        unknown = [name for name in self.modules if name not in linear - {"proj_out"}]
        if unknown:
            known = ", ".join(sorted(linear - {"proj_out"}))
            raise UserError(f"student.modules: {self.model} has no linear layers named {unknown[0]} (it has {known})")
        section = {
            "r": self.r,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.modules),
        }
        lora_config(section)
        setattr(base.config, LORA, section)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = WhisperWithLora(base.config)
        own = model.state_dict()
        for name, value in base.state_dict().items():
            layer, _, leaf = name.rpartition(".")
            own[name if name in own else f"{layer}.base_layer.{leaf}"].copy_(value)
        model.tie_weights()
        model.generation_config = base.generation_config
        return model.eval()

    def freeze(self, model: "WhisperForConditionalGeneration") -> None:
        """The adapters train, nothing else."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_" in name)

    def finished(self, model: "WhisperForConditionalGeneration") -> "WhisperForConditionalGeneration":
        """A plain Whisper."""
        from raykd.models.lora import merged

        return merged(model)
