"""A student with language experts: Multilingual DistilWhisper's.

Shapes: B utterances, U label positions, S encoder positions.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from raykd.config.base import wrong
from raykd.data.batches import Batch
from raykd.data.languages import whisper_code
from raykd.models.routing import GateRecord, Stack, speaking
from raykd.parts.clock import Clock
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.students.pretrained import Pretrained

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

GATES = "gates"
"""Name of what the gates said: `GateRecord` by stack."""


class Experts(Pretrained):
    """A Whisper with an expert and a gate a language beside every feed-forward block; only these train, and languages without
    one stay as they are, exactly (Ferraz et al. 2024, arXiv 2311.01070; naver/multilingual-distilwhisper
    `model/DistilWhisper.py` and `model/train_utils.py`).

    A model that has experts already keeps them, and those of `languages` train on. `freeze_encoder` says nothing here.

    Ours: the noise starts from 0 at the first step, where the released code has its full scale for that one step; the gates'
    weights are drawn from N(0, init_std of the model), as transformers' initialisation makes them there; draws follow from the
    run's seed.
    """

    kind: Literal["experts"] = "experts"  # type: ignore[assignment]
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    """Whisper's codes of the languages that get one. Several can be trained in one run, each on its own utterances."""
    gate_width: int = Field(64, ge=1)
    """Hidden width of a gate."""
    gate_dropout: float = Field(0.1, ge=0, lt=1)
    """Of a gate's input."""
    expert_dropout: float = Field(0.3, ge=0, lt=1)
    """Of an expert's output."""
    noise: float = Field(5.0, ge=0)
    """Standard deviation, at the end of training, of the Gaussian noise on the gates, which grows from 0: they learn to be
    sure."""
    skip: float = Field(0.2, ge=0, le=1)
    """Probability, for each layer and micro-batch, that the layer leaves its experts aside (skip-gate)."""

    @field_validator("languages")
    @classmethod
    def _are_codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [language for language in languages if whisper_code(language) != language]
        if unknown or len(set(languages)) < len(languages):
            found = f"{unknown[0]!r} is not one" if unknown else f"one is listed twice ({', '.join(languages)})"
            raise ValueError(f"must be Whisper's language codes, such as cs, each once; {found}")
        return languages

    @model_validator(mode="after")
    def _is_routed_once(self) -> "Experts":
        if self.gradient_checkpointing:
            told = "not possible with language experts: the second pass would not know how the first one routed; leave it out"
            raise wrong(told, "gradient_checkpointing")
        return self

    def started_from(self) -> str:
        """The model and the languages."""
        return f"{self.model} with experts for {', '.join(self.languages)}"

    def make(self, teacher: "WhisperForConditionalGeneration | None", seed: int) -> "WhisperForConditionalGeneration":
        """See `Student`."""
        from raykd.models.experts import expert_languages, with_experts

        model = with_experts(super().make(teacher, seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for language in self.languages:
                if language not in expert_languages(model.config):
                    model.add_expert(language, self.gate_width)
        return model

    def freeze(self, model: "WhisperForConditionalGeneration") -> None:
        """Experts and gates of its languages train, nothing else."""
        experts: Any = model
        model.requires_grad_(False)
        for _, _, layer in experts.layers():
            for language in self.languages:
                layer.experts[language].requires_grad_(True)

    def learner(self, model: "WhisperForConditionalGeneration") -> WhisperLearner:
        """See `Student`."""
        return ExpertsLearner(model, self)


class ExpertsLearner(WhisperLearner):
    """A student that routes each utterance by its language."""

    def __init__(self, model: Any, config: Experts) -> None:
        from raykd.models.experts import expert_languages

        super().__init__(model)
        self.routing = model.routing
        layers = [stack for stack, _, _ in model.layers()]
        self.gate_layers: dict[Stack, int] = {"encoder": layers.count("encoder"), "decoder": layers.count("decoder")}
        self.languages = frozenset(expert_languages(model.config))
        self._config = config

    def forward(
        self, batch: Batch, wanted: frozenset[str] = frozenset(), clock: Clock | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """See `Learner`, with `GATES` among what can be wanted."""
        config = self._config
        while_training = {
            "noise": config.noise * clock.progress if clock else 0.0,
            "gate_dropout": config.gate_dropout,
            "expert_dropout": config.expert_dropout,
            "skip": config.skip,
        }
        # A placeholder has no utterance, but its experts take part (`LayerExperts`).
        languages = batch.languages or [""] * len(batch.mel_BMF)
        with speaking(self, languages, watched=GATES in wanted, **while_training) as gates:
            hidden_ND, auxiliary = super().forward(batch, wanted)
        return hidden_ND, {**auxiliary, GATES: gates}

    def states(self, batch: Batch) -> Tensor:
        """See `WhisperLearner`; also for those who ask for them alone."""
        if self.routing.languages:
            return super().states(batch)
        with speaking(self, batch.languages):
            return super().states(batch)


def gates_of(auxiliary: Mapping[str, Any], stack: Stack) -> GateRecord:
    """What the gates of a stack said."""
    record: GateRecord = auxiliary[GATES].get(stack) or GateRecord()
    return record
