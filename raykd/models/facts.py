"""What is known of a run once its models, data and machines are: what the banner tells and the forecast reckons with."""

import math
from dataclasses import dataclass

from transformers import WhisperConfig, WhisperForConditionalGeneration

from raykd.config.label import CacheConfig
from raykd.models.size import Flops, ParameterCount, count_parameters, flops_per_utterance


@dataclass(frozen=True)
class ModelFacts:
    """One model: its size and what an utterance costs it."""

    name: str
    dims: WhisperConfig
    shape: str
    """Layers and width in words."""
    parameters: ParameterCount
    flops: Flops
    """One forward pass over one utterance; encoder 0 where the other model's states are used."""
    dtype: str
    attention: str


@dataclass(frozen=True)
class RunFacts:
    """All that the banner tells; filled by the command once models, corpus and cluster are known."""

    name: str
    folder: str
    student: ModelFacts
    teacher: ModelFacts | None
    encoder_frozen: bool
    encoder_shared: bool
    teacher_sharded: bool
    device: str
    """Of one worker, such as `CPU` or `NVIDIA H200`."""
    on_gpu: bool
    bfloat16_available: bool
    """Whether the workers' GPUs compute in bfloat16."""
    cluster_gpus: int
    workers: int
    zero_stage: int
    parts: tuple[str, ...]
    """Files with parts of the user's own, each with the beginning of its hash."""
    batch_size: int
    accumulation: int
    steps: int
    steps_per_epoch: int
    utterances: int
    windows: int
    """Rows of a batch: utterances, or packs of them."""
    hours: float
    languages: tuple[str, ...]
    tokens_per_utterance: float
    """Mean number of label positions of a window, from the corpus index."""
    window_s: float
    copied: bool
    """Whether the student's layers are the teacher's."""
    kept: frozenset[str]
    """Answers of the teacher that come from a cache: `topk`, `encoder`."""
    cache: CacheConfig
    cacheable: bool
    """Whether a cache would serve this run: the teacher is asked the same in every epoch."""
    keep_checkpoints: int
    memory: int | None
    """Bytes that a worker can have: its GPU's, or its share of the machine's; None: not known."""
    free_disk: int | None
    """Bytes left where checkpoints are written; None: not known."""

    @property
    def row(self) -> str:
        """What a batch is counted in."""
        return "utterances" if self.windows == self.utterances else "windows"

    @property
    def micro_batch(self) -> int:
        """Utterances that a worker takes at once."""
        return math.ceil(self.batch_size / (self.workers * self.accumulation))

    @property
    def mean_s(self) -> float:
        """Seconds of speech in a window."""
        return self.hours * 3600 / max(1, self.windows)

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return self.steps / max(1, self.steps_per_epoch)


def model_facts(
    name: str,
    model: WhisperForConditionalGeneration,
    tokens: float,
    dtype: str,
    shared_encoder: bool = False,
    frames: int | None = None,
) -> ModelFacts:
    """Facts of a loaded model, for utterances of `tokens` label positions that it hears `frames` of; None: its whole window."""
    config = model.config
    return ModelFacts(
        name=name,
        dims=config,
        shape=f"{config.encoder_layers}+{config.decoder_layers} layers, width {config.d_model}",
        parameters=count_parameters(model),
        flops=flops_per_utterance(config, frames, max(1, round(tokens)), shared_encoder),
        dtype=dtype,
        attention=config._attn_implementation,
    )
