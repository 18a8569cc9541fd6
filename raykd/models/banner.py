"""What the terminal says before training starts: the models, the machines, the batch, and loud warnings for slow paths."""

import math
from dataclasses import dataclass

from transformers import WhisperForConditionalGeneration

from raykd.models.size import Flops, ParameterCount, count_parameters, flops_per_utterance

FULL_ENOUGH = 0.25
"""Share of the window that utterances fill on average below which the encoder mostly hears padding."""
SMALL_STUDENT = 1_000_000_000
"""Trainable parameters below which sharding them costs more time than it saves memory (16 bytes each with Adam)."""


@dataclass(frozen=True)
class ModelFacts:
    """One model: its size and what an utterance costs it."""

    name: str
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
    hours: float
    languages: tuple[str, ...]
    tokens_per_utterance: float
    """Mean number of label positions, from the corpus index."""
    window_s: float


def model_facts(
    name: str, model: WhisperForConditionalGeneration, tokens: float, dtype: str, shared_encoder: bool = False
) -> ModelFacts:
    """Facts of a loaded model, for utterances of `tokens` label positions."""
    config = model.config
    return ModelFacts(
        name=name,
        shape=f"{config.encoder_layers}+{config.decoder_layers} layers, width {config.d_model}",
        parameters=count_parameters(model),
        flops=flops_per_utterance(config, tokens=max(1, round(tokens)), shared_encoder=shared_encoder),
        dtype=dtype,
        attention=config._attn_implementation,
    )


def banner_text(facts: RunFacts) -> str:
    """The start-up banner, one line a subject, then one line for each slow path."""
    rows = [("teacher", _model_line(facts.teacher, "frozen"))] if facts.teacher else []
    trains = f"{_millions(facts.student.parameters.trainable)} train"
    rows += [
        ("student", _model_line(facts.student, trains) + (", encoder run once for both" if facts.encoder_shared else "")),
        ("data", _data_line(facts)),
        ("workers", f"{facts.workers} x {facts.device}, ZeRO stage {facts.zero_stage}"),
        ("batch", _batch_line(facts)),
        ("length", f"{facts.steps:,} steps, {facts.steps / facts.steps_per_epoch:.1f} epochs of {facts.steps_per_epoch:,}"),
    ]
    rows += [("parts", f"code of your own from {', '.join(facts.parts)}")] if facts.parts else []
    lines = [f"run {facts.name} -> {facts.folder}"]
    lines += [f"  {subject:<9}{text}" for subject, text in rows]
    lines += [f"  WARNING  {warning}" for warning in slow_paths(facts)]
    return "\n".join(lines)


@dataclass(frozen=True)
class MlmFacts:
    """What the banner of a masked language model's training tells."""

    name: str
    folder: str
    width: int
    layers: int
    parameters: int
    dtype: str
    segments: int
    tokens_per_segment: float
    masked_per_segment: float
    language: str
    device: str
    workers: int
    zero_stage: int
    batch_size: int
    steps: int
    steps_per_epoch: int


def mlm_banner_text(facts: MlmFacts) -> str:
    """The start-up banner of a masked language model's training."""
    size = f"{_millions(facts.parameters)} parameters, {facts.dtype}"
    rows = [
        ("mlm", f"{facts.layers} bidirectional LSTM layers, width {facts.width}, {size}"),
        ("text", f"{facts.segments:,} segments of {facts.tokens_per_segment:.1f} tokens, {facts.language}"),
        ("workers", f"{facts.workers} x {facts.device}, ZeRO stage {facts.zero_stage}"),
        ("batch", f"{facts.batch_size} segments, {facts.masked_per_segment:.1f} masked tokens in each"),
        ("length", f"{facts.steps:,} steps, {facts.steps / facts.steps_per_epoch:.1f} epochs of {facts.steps_per_epoch:,}"),
    ]
    return "\n".join([f"run {facts.name} -> {facts.folder}", *(f"  {subject:<9}{text}" for subject, text in rows)])


def slow_paths(facts: RunFacts) -> list[str]:
    """What makes this run slower than it need be, each with its remedy."""
    return [warning for warning in (*_model_warnings(facts), *_machine_warnings(facts), *_batch_warnings(facts)) if warning]


def _model_warnings(facts: RunFacts) -> list[str]:
    models = {"teacher": facts.teacher, "student": facts.student}
    found = []
    for role, model in models.items():
        if model and model.attention == "eager":
            found.append(f"the {role} uses eager attention, which stores every attention matrix; load it with SDPA")
        if model and facts.on_gpu and facts.bfloat16_available and model.dtype == "float32":
            key = "teacher.dtype" if role == "teacher" else "train.precision"
            found.append(f"the {role} computes in float32 on a GPU with bfloat16; {key}: bfloat16 is several times faster")
    if facts.teacher and facts.encoder_frozen and not facts.encoder_shared:
        found.append(
            "the frozen encoder differs from the teacher's, so two encoders run; init: teacher with all layers needs one"
        )
    if facts.teacher_sharded and facts.workers == 1:
        found.append("teacher.sharded with one worker only adds copying; set it to false")
    return found


def _machine_warnings(facts: RunFacts) -> list[str]:
    found = []
    if facts.cluster_gpus and not facts.on_gpu:
        found.append(f"training runs on CPU though the cluster has {facts.cluster_gpus} GPUs; set cluster.use_gpu: true")
    if facts.on_gpu and facts.workers < facts.cluster_gpus:
        idle = facts.cluster_gpus - facts.workers
        found.append(f"{idle} of {facts.cluster_gpus} GPUs have no training worker; raise cluster.num_workers")
    if facts.zero_stage == 3 and facts.student.parameters.trainable < SMALL_STUDENT:
        size = _millions(facts.student.parameters.trainable)
        found.append(f"ZeRO stage 3 gathers every weight in each step for only {size} parameters; train.zero_stage: 1")
    return found


def _batch_warnings(facts: RunFacts) -> list[str]:
    found = []
    slots = facts.workers * facts.accumulation
    if facts.batch_size % slots:
        found.append(
            f"a batch of {facts.batch_size} does not divide by {facts.workers} workers x {facts.accumulation} accumulated; "
            f"workers wait for each other; train.batch_size: {math.ceil(facts.batch_size / slots) * slots}"
        )
    if facts.utterances < facts.batch_size:
        found.append(f"the corpus has {facts.utterances} utterances, fewer than a batch of {facts.batch_size}")
    filled = _mean_s(facts) / facts.window_s
    if filled < FULL_ENOUGH:
        found.append(f"utterances fill {filled:.0%} of the {facts.window_s:g} s window, and the encoder computes all of it")
    return found


def _model_line(model: ModelFacts, trains: str) -> str:
    size = f"{_millions(model.parameters.total)} parameters ({trains})"
    giga = model.flops.total / 1e9
    cost = f"{giga:,.0f} GFLOP an utterance" if giga >= 100 else f"{giga:.3g} GFLOP an utterance"
    return f"{model.name}: {model.shape}, {size}, {cost}, {model.dtype}, {model.attention} attention"


def _data_line(facts: RunFacts) -> str:
    return (
        f"{facts.utterances:,} utterances, {facts.hours:.2f} h, {_mean_s(facts):.1f} s and "
        f"{facts.tokens_per_utterance:.1f} tokens each, {' '.join(facts.languages)}"
    )


def _batch_line(facts: RunFacts) -> str:
    each = math.ceil(facts.batch_size / (facts.workers * facts.accumulation))
    tokens = facts.batch_size * facts.tokens_per_utterance
    return (
        f"{facts.batch_size} utterances ({facts.workers} workers x {facts.accumulation} accumulated x {each}), "
        f"about {tokens:,.0f} tokens a step"
    )


def _mean_s(facts: RunFacts) -> float:
    return facts.hours * 3600 / max(1, facts.utterances)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"
