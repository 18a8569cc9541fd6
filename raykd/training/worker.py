"""What one training worker does: build models, engine and batches from a job's paths, train, write checkpoints."""

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raykd.config.root import RunConfig
from raykd.data.corpus import Corpus
from raykd.data.order import EpochOrder
from raykd.data.stream import Reading, StepBatches
from raykd.models.state import frozen_names, state_hash
from raykd.training import checkpoint as ckpt
from raykd.training.loop import NotFiniteError, Record, Trainer, train
from raykd.training.plan import accumulation_steps, plan_training

Emit = Callable[[Record], None]


@dataclass(frozen=True)
class TrainingJob(ABC):
    """All that a worker needs to know. It is sent to every worker, so it holds paths, not objects.

    What is trained, on what and towards what is for the kinds of job to say (`student_job`, `mlm_job`).
    """

    config: RunConfig
    corpus: Corpus
    checkpoints: str
    trained_ids: str | None
    """Folder where the ids of trained batches are written; None: nowhere."""
    teacher_hash: str
    """Of the weights of all that teaches; empty where nothing does."""

    @abstractmethod
    def order(self) -> EpochOrder:
        """Which rows of the corpus make up each step."""

    @abstractmethod
    def reading(self, order: EpochOrder, rank: int, world: int, accumulation: int) -> Reading:
        """What worker `rank` reads, and how it becomes batches."""

    @abstractmethod
    def load_model(self) -> nn.Module:
        """The untrained model, float32 on the CPU, its parameters that do not train frozen."""

    @abstractmethod
    def build_trainer(self, model: nn.Module, device: torch.device, world: int, accumulation: int) -> Trainer:
        """The model in an engine on the device, with all that it learns from."""


StepStream = Callable[[Reading, range], Generator[StepBatches, None, None]]
"""(reading, steps) -> a worker's batches: `data.stream.stream_steps` or `local_steps`."""


def run_worker(job: TrainingJob, rank: int, world: int, device: torch.device, stream: StepStream, emit: Emit) -> None:
    """Train from the newest checkpoint (or the start) to the end of the plan.

    `emit` gets a record for each step and checkpoint from rank 0; a loss that is not finite or a checkpoint that cannot be
    written ends training with a `stopped` record, because trying again would end the same way.
    """
    config = job.config
    torch.manual_seed(config.seed)
    emit_here: Emit = emit if rank == 0 else _nothing
    order = job.order()
    plan = plan_training(config.train, order.steps_per_epoch)
    accumulation = accumulation_steps(config.train, world)
    model = job.load_model()
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = ckpt.CheckpointState(
        step=0,
        frozen_hash=state_hash(model, frozen_names(model)),
        teacher_hash=job.teacher_hash,
        corpus_key=job.corpus.key,
    )
    start = ckpt.latest_checkpoint(job.checkpoints)
    first_step = _load_parameters(start, state, trainable) if start else 0
    trainer = job.build_trainer(model, device, world, accumulation)
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
        emit_here({**record, "seconds": seconds, f"{trainer.unit}_per_s": record[trainer.unit] / seconds})
        if job.trained_ids:
            _record_ids(job.trained_ids, rank, batches)

    try:
        reading = job.reading(order, rank, world, accumulation)
        with closing(stream(reading, range(first_step, plan.steps))) as batches:
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
