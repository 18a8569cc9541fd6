"""What the terminal says before training starts: the models, the machines, the batch, and loud warnings for slow paths."""

import math
from dataclasses import dataclass

from raykd.models.facts import ModelFacts, RunFacts
from raykd.models.forecast import data_verdict, forecast_rows, out_of_proportion
from raykd.models.runtimes import limits
from raykd.models.window import clip_margin

FULL_ENOUGH = 0.25
"""Share of the window that utterances fill on average below which the encoder mostly hears padding."""
SMALL_STUDENT = 1_000_000_000
"""Trainable parameters below which sharding them costs more time than it saves memory (16 bytes each with Adam)."""


def banner_text(facts: RunFacts) -> str:
    """The start-up banner, one line a subject, then one line for each slow path."""
    rows = []
    if facts.teacher:
        learns = facts.teacher.parameters.trainable
        rows.append(("teacher", _model_line(facts.teacher, f"{_millions(learns)} learn" if learns else "frozen")))
    trains = f"{_millions(facts.student.parameters.trainable)} train"
    rows += [
        ("student", _model_line(facts.student, trains) + (", encoder run once for both" if facts.encoder_shared else "")),
        ("data", _data_line(facts)),
        ("enough", data_verdict(facts)),
        ("workers", f"{facts.workers} x {facts.device}, ZeRO stage {facts.zero_stage}"),
        ("batch", _batch_line(facts)),
        ("length", f"{facts.steps:,} steps, {facts.steps / facts.steps_per_epoch:.1f} epochs of {facts.steps_per_epoch:,}"),
    ]
    rows += forecast_rows(facts)
    rows += [("export", limit) for limit in limits(facts.student.dims)]
    rows += [("parts", f"code of your own from {', '.join(facts.parts)}")] if facts.parts else []
    lines = [f"run {facts.name} -> {facts.folder}"]
    lines += [f"  {subject:<9}{text}" for subject, text in rows]
    lines += [f"  WARNING  {warning}" for warning in (*slow_paths(facts), *out_of_proportion(facts))]
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
    teacher = None if "topk" in facts.kept else facts.teacher  # one whose answers were kept is not run
    models = {"teacher": teacher, "student": facts.student}
    found = []
    for role, model in models.items():
        if model and model.attention == "eager":
            found.append(f"the {role} uses eager attention, which stores every attention matrix; load it with SDPA")
        if model and facts.on_gpu and facts.bfloat16_available and model.dtype == "float32":
            key = "teacher.dtype" if role == "teacher" else "train.precision"
            found.append(f"the {role} computes in float32 on a GPU with bfloat16; {key}: bfloat16 is several times faster")
    if teacher and facts.encoder_frozen and not facts.encoder_shared:
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
    if facts.windows < facts.batch_size:
        found.append(f"the corpus has {facts.windows} {facts.row}, fewer than a batch of {facts.batch_size}")
    filled = facts.mean_s / facts.window_s
    if filled < FULL_ENOUGH and clip_margin(facts.student.dims) is None:
        found.append(
            f"utterances fill {filled:.0%} of the {facts.window_s:g} s window, and the encoder computes all of it, also at "
            "inference; student.window: clip trains a student for which it does not"
        )
    return found


def _model_line(model: ModelFacts, trains: str) -> str:
    size = f"{_millions(model.parameters.total)} parameters ({trains})"
    giga = model.flops.total / 1e9
    cost = f"{giga:,.0f} GFLOP an utterance" if giga >= 100 else f"{giga:.3g} GFLOP an utterance"
    return f"{model.name}: {model.shape}, {size}, {cost}, {model.dtype}, {model.attention} attention"


def _data_line(facts: RunFacts) -> str:
    packed = f" in {facts.windows:,} windows" if facts.windows != facts.utterances else ""
    return (
        f"{facts.utterances:,} utterances{packed}, {facts.hours:.2f} h, {facts.mean_s:.1f} s and "
        f"{facts.tokens_per_utterance:.1f} tokens each, {' '.join(facts.languages)}"
    )


def _batch_line(facts: RunFacts) -> str:
    tokens = facts.batch_size * facts.tokens_per_utterance
    return (
        f"{facts.batch_size} {facts.row} ({facts.workers} workers x {facts.accumulation} accumulated x {facts.micro_batch}), "
        f"about {tokens:,.0f} tokens a step"
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"
