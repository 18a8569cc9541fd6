"""What a run will need and what can be expected of it, before it is paid for. Pure functions.

Where the numbers come from is said at each. B utterances, S encoder positions, T decoder tokens, D width.
"""

import math
from dataclasses import dataclass

from raykd.models.facts import ModelFacts, RunFacts

_ADAM = 8
_FEW_LAYERS = 4
_LARGE_WIDTH = 1024
"""Width of medium; that of the curve's teacher is 1280."""
_FEW_STEPS = 500
_SERIES = ((2, "6 to 14"), (25, "2.7 to 5.5"), (250, "1.0 to 1.6"), (1_253, "0.8 to 1.2"), (10_000, "0.8 to 1.2"))
"""Hours that the filter kept, and the student's CER over the teacher's on three test sets: kotoba-whisper, 32+2 from large-v3,
Japanese (README, "Ablation study"; of 8.5 to 35 000 hours a quarter was kept, as its two model cards have it)."""
_FEW_HOURS = 10
_BANDS = ((_FEW_HOURS, "3 to 6"), (100, "1.3 to 2"), (500, "1.2 to 1.3"), (1_000, "at most 1.2"))
"""From how many hours on which error, as a multiple of the teacher's: our reading of that series and of two single points, a
French (4 515 h: 1.19) and a Chinese one (14 000 h: 1.09). 500 to 1 000 h is between two points; with fewer it failed."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the height of a step on one worker, without what Python and the libraries take themselves."""

    student: float
    """Weights, gradients and Adam's moments."""
    teacher: float
    """Weights that are not the student's too; of one that learns, gradients and moments as well."""
    activations: float
    """What a micro-batch leaves behind for its backward pass, and the frozen encoder's passing needs."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.student + self.teacher + self.activations


def memory_per_worker(facts: RunFacts) -> Memory:
    """An estimate: models exactly, activations by a rule of thumb.

    A layer that trains keeps 17 numbers for each position and width, and a decoder layer 5 more for its cross-attention (34
    bytes in 16 bit without the attention matrix: Korthikanti et al. 2022, section 4.1), and keys and values of all encoder
    positions. An encoder that only passes through holds six times its states.
    """
    student, teacher, world = facts.student, facts.teacher, facts.workers
    trains, frozen = student.parameters.trainable, student.parameters.total - student.parameters.trainable
    shares = [world if facts.zero_stage >= stage else 1 for stage in (3, 2, 1)]
    weights, gradients, moments = (size / share for size, share in zip((4, 4, _ADAM), shares, strict=True))
    return Memory(
        student=trains * (weights + gradients + moments) + frozen * _bytes(student) * (not _encoder_is_kept(facts)),
        teacher=_teacher_weights(facts, teacher) + teacher.parameters.trainable * (gradients + moments) if teacher else 0.0,
        activations=_activations(facts),
    )


def _teacher_weights(facts: RunFacts, teacher: ModelFacts) -> float:
    """Of what is loaded: nothing where its likeliest tokens were kept, its decoder where the encoder is the student's."""
    if "topk" in facts.kept:
        return 0.0
    shared = facts.encoder_shared or "encoder" in facts.kept
    frozen_encoder = facts.student.parameters.total - facts.student.parameters.trainable
    parameters = teacher.parameters.total - (frozen_encoder if shared else 0)
    return parameters * _bytes(teacher) / (facts.workers if facts.teacher_sharded else 1)


def _activations(facts: RunFacts) -> float:
    dims, number = facts.student.dims, _bytes(facts.student)
    S, T, D = dims.max_source_positions, facts.tokens_per_utterance, dims.d_model
    states = S * D * number
    decoder = dims.decoder_layers * (22 * T * D * number + 2 * states)
    encoder = 6 * states if facts.encoder_frozen else dims.encoder_layers * 17 * states
    mel = 2 * S * dims.num_mel_bins * 4
    return facts.micro_batch * (mel + states + decoder + (0 if _encoder_is_kept(facts) else encoder))


def _encoder_is_kept(facts: RunFacts) -> bool:
    return facts.encoder_frozen and facts.encoder_shared and "encoder" in facts.kept


def _bytes(model: ModelFacts) -> int:
    return 2 if model.dtype == "bfloat16" else 4


@dataclass(frozen=True)
class Disk:
    """Bytes that are written."""

    checkpoint: float
    run: float
    """All checkpoints that are kept at once, with the best, and the student."""
    topk: float
    """Of a cache of the teacher's likeliest tokens for the training data."""
    encoder: float
    """Of a cache of its encoder states."""


def disk(facts: RunFacts) -> Disk:
    """Exactly, but for file headers."""
    parameters, dims = facts.student.parameters, (facts.teacher or facts.student).dims
    learns = facts.teacher.parameters.trainable if facts.teacher else 0
    checkpoint = (parameters.trainable + learns) * (4 + _ADAM)
    entry = (2 if dims.vocab_size <= 1 << 16 else 4) + 2
    position = facts.cache.k * entry + 4 * len(facts.cache.temperatures)
    state = 2 if facts.cache.states == "float16" else 1
    windows = facts.windows * facts.cache.views
    return Disk(
        checkpoint=checkpoint,
        run=checkpoint * (facts.keep_checkpoints + 1) + 4 * parameters.total,
        topk=windows * facts.tokens_per_utterance * position,
        encoder=windows * dims.max_source_positions * dims.d_model * state,
    )


def cache_gain(facts: RunFacts) -> float:
    """How many times less arithmetic a step has when the teacher's answers come from a cache.

    A backward pass costs twice a forward one. A shared encoder is counted as the teacher's, and the cache has its states.
    """
    student = facts.student.flops
    step = 3 * (student.decoder + student.head) + (1 if facts.encoder_frozen else 3) * student.encoder
    return (step + (facts.teacher.flops.total if facts.teacher else 0)) / step


def data_verdict(facts: RunFacts) -> str:
    """What the published curve of data says of this run."""
    amount = f"{facts.hours:,.{0 if facts.hours >= 100 else 2}f} h, {facts.epochs:.3g} passes, {facts.steps:,} steps"
    if not _on_the_curve(facts):
        return f"{amount}; no curve is published for such a student"
    hours, error = min(_SERIES, key=lambda row: abs(math.log(row[0] / max(facts.hours, 0.1))))
    band = _band(facts)
    expected = f"an error of {band} times the teacher's" if band else "a decoder that does not learn to speak"
    return f"{amount}: expect {expected}; published for {hours:,} h: {error} times"


def _band(facts: RunFacts) -> str | None:
    """The error to expect; None: it will fail."""
    if facts.steps < _FEW_STEPS:
        return None
    return next((error for hours, error in reversed(_BANDS) if facts.hours >= hours), None)


def _on_the_curve(facts: RunFacts) -> bool:
    """A few copied decoder layers of a large teacher, whose width they keep."""
    teacher, student = facts.teacher, facts.student
    return (
        facts.copied
        and teacher is not None
        and teacher.dims.d_model >= _LARGE_WIDTH
        and student.dims.decoder_layers <= min(_FEW_LAYERS, teacher.dims.decoder_layers // 2)
    )


def out_of_proportion(facts: RunFacts) -> list[str]:
    """What of the run does not go together, each with its remedy."""
    return [*_too_little_data(facts), *_too_large(facts)]


def _too_little_data(facts: RunFacts) -> list[str]:
    if not _on_the_curve(facts):
        return []
    assert facts.teacher is not None
    decoder = f"a {facts.student.dims.decoder_layers}-layer decoder of {facts.teacher.name}"
    if facts.hours < _FEW_HOURS:
        return [
            f"{facts.hours:.2g} h of audio will not train {decoder}: take a smaller teacher, such as openai/whisper-base, keep "
            "8 layers (student.decoder_layers: 8), or start from a distilled one (student.init: distil-whisper/distil-large-v2)"
        ]
    if facts.steps < _FEW_STEPS:
        return [
            f"{facts.steps} steps will not train {decoder}; raise train.epochs or train.steps to {_FEW_STEPS} steps and more"
        ]
    if _band(facts) == _BANDS[0][1]:
        return [f"{facts.hours:.2g} h of audio leave {decoder} far behind; more passes help first: raise train.epochs"]
    return []


def _too_large(facts: RunFacts) -> list[str]:
    found = []
    memory = memory_per_worker(facts)
    if facts.memory is not None and memory.total > facts.memory:
        room = facts.memory - memory.student - memory.teacher
        fits = int(room / memory.activations * facts.micro_batch)
        remedy = f"train.micro_batch_size: {fits}" if fits >= 1 else "more workers with train.zero_stage: 3, or smaller models"
        found.append(f"a worker would need {size(memory.total)} of {size(facts.memory)} of memory; {remedy}")
    if facts.free_disk is not None and disk(facts).run > facts.free_disk:
        found.append(
            f"checkpoints and student take {size(disk(facts).run)}, and {size(facts.free_disk)} are free; "
            "lower train.keep_checkpoints or give output_dir another disk"
        )
    return found


def forecast_rows(facts: RunFacts) -> list[tuple[str, str]]:
    """Subject and text: memory, disk, and what a cache would save."""
    memory, needs = memory_per_worker(facts), disk(facts)
    parts = {"student": memory.student, "teacher": memory.teacher, "activations": memory.activations}
    listed = ", ".join(f"{name} {size(part)}" for name, part in parts.items() if part)
    rows = [
        ("memory", f"about {size(memory.total)} a worker ({listed})"),
        ("disk", f"{size(needs.run)} for checkpoints of {size(needs.checkpoint)} each and the student"),
    ]
    if facts.teacher and facts.cacheable and not facts.kept and facts.epochs > 1:
        which, states = "topk", ""
        if facts.encoder_shared:
            which, states = "both", f" and {size(needs.encoder)} of encoder states"
        rows.append(
            (
                "cache",
                f"{size(needs.topk)} of likeliest tokens{states} would leave 1/{cache_gain(facts):.1f} of a step's arithmetic, "
                f"and cost the teacher one pass (python -m raykd.label --cache {which})",
            )
        )
    return rows


def epoch_seconds(seconds: list[float], steps_per_epoch: int) -> float:
    """Time of an epoch from that of its first steps: their median, without the first two, which also start things."""
    timed = sorted(seconds[2:] or seconds)
    return timed[len(timed) // 2] * steps_per_epoch


def size(count: float) -> str:
    """Bytes as people read them, in powers of 1000."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = min(len(units) - 1, max(0, int(math.log10(max(1.0, count)) // 3)))
    return f"{count / 1000**power:.3g} {units[power]}"
