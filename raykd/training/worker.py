"""What one training worker does: build models, engine and batches from a job's paths, train, write checkpoints."""

import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from raykd.config.root import Config
from raykd.data.corpus import Corpus
from raykd.data.format import SpeechFormat
from raykd.data.order import EpochOrder
from raykd.data.stream import StepBatches
from raykd.models.state import frozen_names, state_hash
from raykd.models.student import freeze, shares_encoder
from raykd.models.whisper import load_whisper
from raykd.objectives.recipes import terms_of
from raykd.training import checkpoint as ckpt
from raykd.training.engine import Engine
from raykd.training.loop import NotFiniteError, Record, Trainer, train
from raykd.training.plan import accumulation_steps, plan_training
from raykd.training.step import FrozenEncoder, StudentStep, Teacher

Emit = Callable[[Record], None]


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker needs to know. It is sent to every worker, so it holds paths, not objects."""

    config: Config
    corpus: Corpus
    speech_format: SpeechFormat
    student: str
    """Folder of the student as it was before training."""
    teacher: str | None
    teacher_hash: str
    checkpoints: str
    trained_ids: str | None
    """Folder where the ids of trained batches are written; None: nowhere."""


StepStream = Callable[[TrainingJob, EpochOrder, range, int, int, int], Generator[StepBatches, None, None]]
"""(job, order, steps, rank, world, accumulation) -> this worker's batches: `data.stream.stream_steps` or `local_steps`."""


def run_worker(job: TrainingJob, rank: int, world: int, device: torch.device, stream: StepStream, emit: Emit) -> None:
    """Train from the newest checkpoint (or the start) to the end of the plan.

    `emit` gets a record for each step and checkpoint from rank 0; a loss that is not finite or a checkpoint that cannot be
    written ends training with a `stopped` record, because trying again would end the same way.
    """
    config = job.config
    torch.manual_seed(config.seed)
    emit_here: Emit = emit if rank == 0 else _nothing
    order = EpochOrder(job.corpus.index("train"), config.seed, config.train.batch_size, config.data.mix)
    plan = plan_training(config.train, order.steps_per_epoch)
    accumulation = accumulation_steps(config.train, world)
    student = load_student(job)
    trainable = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    state = ckpt.CheckpointState(
        step=0,
        frozen_hash=state_hash(student, frozen_names(student)),
        teacher_hash=job.teacher_hash,
        corpus_key=job.corpus.key,
    )
    start = ckpt.latest_checkpoint(job.checkpoints)
    first_step = _load_parameters(start, state, trainable) if start else 0
    trainer = build_trainer(job, student, device, world, accumulation)
    if start:
        trainer.engine.restore_moments(trainable, ckpt.read_moments(start), first_step)
    emit_here({"kind": "started", "step": first_step, "steps": plan.steps})

    def save(step: int) -> None:
        parameters = trainer.engine.parameters_of(trainable, keep=rank == 0)
        moments = trainer.engine.moments_of(trainable, keep=rank == 0)
        failure = _write(job, replace(state, step=step), parameters, moments) if rank == 0 else None
        failure = _from_rank_0(failure, world)
        if failure:
            raise CheckpointNotWrittenError(failure)
        emit_here({"kind": "checkpoint", "step": step, "evaluate": plan.evaluation_due(step)})

    clock = _Clock()

    def on_step(record: Record, batches: StepBatches) -> None:
        seconds = clock.lap()
        emit_here({**record, "seconds": seconds, "utterances_per_s": record["utterances"] / seconds})
        if job.trained_ids:
            _record_ids(job.trained_ids, rank, batches)

    try:
        with closing(stream(job, order, range(first_step, plan.steps), rank, world, accumulation)) as batches:
            train(trainer, batches, plan, on_step, save)
    except (NotFiniteError, CheckpointNotWrittenError) as error:
        emit_here({"kind": "stopped", "reason": str(error)})


class _Clock:
    """Seconds from one step's end to the next's; a checkpoint in between counts to the later step."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return max(seconds, 1e-9)


class CheckpointNotWrittenError(Exception):
    """A checkpoint could not be written. The message names the folder, the cause and what is left."""


def load_student(job: TrainingJob) -> WhisperForConditionalGeneration:
    """The untrained student with the parameters that do not train frozen, float32 on the CPU."""
    student = load_whisper(job.student)
    freeze(student, job.config.student)
    if job.config.student.gradient_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    return student


def build_trainer(
    job: TrainingJob, student: WhisperForConditionalGeneration, device: torch.device, world: int, accumulation: int
) -> Trainer:
    """Teacher, frozen encoder and engine on the device."""
    config = job.config
    mixed = compute_dtype(config.train.precision, device)
    teacher_dtype = compute_dtype(config.teacher.dtype if config.teacher else "float32", device)
    teacher = None
    if job.teacher is not None and config.teacher is not None:
        teacher_model = load_whisper(job.teacher, teacher_dtype, config.teacher.revision)
        shared = shares_encoder(config.student, teacher_model, student)
        teacher = Teacher(teacher_model, device, config.teacher.sharded)
    module = StudentStep(student)
    frozen_encoder = None
    if module.encoder is None:
        student.model.encoder.to(device)
        frozen_encoder = FrozenEncoder(student, teacher, teacher is not None and shared, mixed)
    return Trainer(
        config=config.train,
        terms=terms_of(config.objective),
        engine=Engine(module.to(device), config.train, accumulation),
        frozen_encoder=frozen_encoder,
        teacher=teacher,
        autocast=mixed if mixed != torch.float32 else None,
        world=world,
    )


def compute_dtype(choice: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; `auto` is bfloat16 on GPUs that have it. On CPUs it is float32, where bfloat16 is only
    faster with AVX512-BF16 or AMX (8 times in the output head of a small student, benchmarks/RESULTS.md)."""
    if choice == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if choice == "bfloat16" else torch.float32


def _load_parameters(path: str, expected: ckpt.CheckpointState, trainable: dict[str, nn.Parameter]) -> int:
    found = ckpt.read_state(path)
    ckpt.check_same_run(found, expected, path)
    values = ckpt.read_trainable(path)
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(values[name])
    return found.step


def _write(
    job: TrainingJob, state: ckpt.CheckpointState, trainable: dict[str, Tensor], moments: dict[str, Tensor]
) -> str | None:
    """Write a checkpoint; why it could not be written, or None."""
    try:
        ckpt.write_checkpoint(job.checkpoints, state, trainable, moments)
    except OSError as error:
        last = ckpt.latest_checkpoint(job.checkpoints)
        kept = f"the last good checkpoint is {last}" if last else "there is no earlier checkpoint"
        return (
            f"the checkpoint of step {state.step} could not be written to {job.checkpoints} ({error.strerror or error}); "
            f"{kept}; make room and go on with --resume"
        )
    return None


def _from_rank_0(value: str | None, world: int) -> str | None:
    """Rank 0's value, on every worker, so that all of them stop together."""
    values = [value]
    if world > 1:
        dist.broadcast_object_list(values)
    return values[0]


def _record_ids(folder: str, rank: int, batches: StepBatches) -> None:
    ids = [utterance for batch in batches.micro for utterance in batch.ids]
    line = json.dumps({"step": batches.step + 1, "epoch": batches.epoch, "ids": ids})
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"rank-{rank}-pid-{os.getpid()}.jsonl"), "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _nothing(record: Record) -> None:
    """Records of workers other than rank 0 are the same, so they are not sent."""
