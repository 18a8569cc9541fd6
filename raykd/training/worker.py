"""What one training worker does: build models, engine and batches from a job's paths, train, write checkpoints."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raykd import storage
from raykd.config.root import RunConfig
from raykd.data.corpus import Corpus
from raykd.data.order import EpochOrder
from raykd.data.stream import Reading, StepBatches
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.models.precision import compute_dtype, has_bfloat16
from raykd.models.state import frozen_names, state_hash
from raykd.parts.clock import Clock
from raykd.parts.recipes.recipe import Method
from raykd.parts.students.learner import Learner
from raykd.parts.timing import part
from raykd.parts.worker import Worker
from raykd.training import checkpoint as ckpt
from raykd.training.engine import Engine, WholeCopy
from raykd.training.loop import NotFiniteError, Record, Trainer, train
from raykd.training.method import LiveMethod
from raykd.training.pace import Pace
from raykd.training.plan import TrainingPlan, accumulation_steps, effective_zero_stage, plan_training
from raykd.training.profiling import WARM_UP, Profile
from raykd.training.step import Step

Emit = Callable[[Record], None]


@dataclass(frozen=True, kw_only=True)
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
    parts_hash: str = ""
    """Of the files of parts that are not raykd's own."""
    kept_tokens: tuple[int, ...] | None = None
    """Of each of the model's tokens, its id in the corpus's vocabulary; None: that is its own."""
    first_steps: int | None = None
    """Stop after so many steps, without a checkpoint, to measure them; None: train to the end of the plan."""
    profile: str | None = None
    """Folder for the profile of these steps and of a checkpoint after them, without the first ones; None: there is none."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """What a row of the corpus is: `utterances` or `segments`."""

    @property
    @abstractmethod
    def method(self) -> Method:
        """What it is trained towards."""

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
    def learner(self, model: nn.Module) -> Learner:
        """The model as the engine takes it."""

    @abstractmethod
    def labels(self) -> LabelEncoder:
        """The model's vocabulary."""

    @abstractmethod
    def dev_loss(self, rank: int, world: int, device: torch.device) -> Callable[[Any], float]:
        """See `parts.worker.Worker.dev_loss`."""

    def frozen_dtype(self, device: torch.device) -> torch.dtype:
        """Type of what does not train of the model."""
        return compute_dtype(self.config.train.precision, device)


StepStream = Callable[[Reading, range], Generator[StepBatches, None, None]]
"""(reading, steps) -> a worker's batches: `data.stream.stream_steps` or `local_steps`."""


def run_worker(job: TrainingJob, rank: int, world: int, device: torch.device, stream: StepStream, emit: Emit) -> None:
    """Train from the newest good checkpoint (or the start) to the end of the plan.

    `emit` gets a record for each step and checkpoint from rank 0; a loss that is not finite or a checkpoint that cannot be
    written ends training with a `stopped` record, because trying again would end the same way.

    Raises:
        UserError: the checkpoint is of another run, or every one is damaged.
    """
    config = job.config
    torch.manual_seed(config.seed)
    emit_here: Emit = emit if rank == 0 else _nothing
    order = job.order()
    plan = plan_training(config.train, order.steps_per_epoch)
    accumulation = accumulation_steps(config.train, world)
    run = _Run(job, rank, world, device, plan, accumulation, emit_here)
    emit_here({"kind": "started", "step": run.state.step, "steps": plan.steps, **_machine(run)})
    pace = Pace(device, run.trainer.module.autocast or torch.float32, job.unit)
    profile = Profile(device) if job.profile and rank == 0 else None

    def on_step(record: Record, batches: StepBatches) -> None:
        record = {**record, **pace.of_step(record, batches)}
        run.count(record)
        emit_here(record)
        run.tell_events(record["step"])
        if job.trained_ids:
            _record_ids(job.trained_ids, rank, batches)
        if profile and record["step"] == run.first_step + WARM_UP:
            profile.begin()

    try:
        reading = replace(job.reading(order, rank, world, accumulation), pinned=device.type == "cuda")
        steps = range(run.state.step, plan.steps)[: job.first_steps]
        with closing(stream(reading, steps)) as batches:
            train(run.trainer, batches, plan, pace, on_step, run.save if job.first_steps is None else _nothing)
        if job.profile:
            run.save(run.state.step)
        if profile and job.profile:
            emit_here({"kind": "profile", "step": run.state.step, "seconds": profile.end(job.profile)})
    except (NotFiniteError, CheckpointNotWrittenError) as error:
        run.tell_events(run.state.step)
        emit_here({"kind": "stopped", "reason": str(error)})


class _Run:
    """A job's model, method and engine on one worker, as the newest checkpoint left them."""

    def __init__(
        self, job: TrainingJob, rank: int, world: int, device: torch.device, plan: TrainingPlan, accumulation: int, emit: Emit
    ) -> None:
        self._job, self._rank, self._world, self._plan, self._emit = job, rank, world, plan, emit
        config = job.config
        model = job.load_model()
        self._model = model
        self._trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._buffers = tuple(model.state_dict().keys() - dict(model.named_parameters(remove_duplicate=False)).keys())
        """Names of what the model holds beside its parameters: kept with what it trains, the same on all workers."""
        self.state = ckpt.CheckpointState(
            step=0,
            frozen_hash=state_hash(model, frozen_names(model)),
            teacher_hash=job.teacher_hash,
            corpus_key=job.corpus.key,
            parts_hash=job.parts_hash,
            updates=0,
        )
        start = _from_rank_0(_start_of(job, emit) if rank == 0 else None, world)
        if start:
            self.state = _load_parameters(start, self.state, {**self._trained, **self._held()})
        self.first_step = self.state.step
        """After which training goes on."""
        learner = job.learner(model)
        dev_loss = job.dev_loss(rank, world, device)
        mixed = compute_dtype(config.train.precision, device)
        autocast = mixed if mixed != torch.float32 else None
        compiles = device.type == "cuda" if config.train.compile is None else config.train.compile
        compile_or_tell = self._tell if compiles else None
        on = Worker(device, learner, job.labels(), dev_loss, rank, world, config.seed, autocast, compile_or_tell)
        self._method = LiveMethod(job.method, on, Clock(self.state.step, plan.steps, plan.steps_per_epoch, config.seed))
        self._beside = {
            f"{place}.{name}": parameter
            for place, module in self._method.learners().items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        if start:
            self._restore_parts(ckpt.read_parts(start))
        learner.settle(device, job.frozen_dtype(device), compile_or_tell)
        whole = None
        if effective_zero_stage(config.train, world) == 3 and self._method.reads_student:
            whole = learner.whole = WholeCopy(learner)
        module = Step(learner, autocast, self._method.learners().values(), self._method.heads()).to(device)
        engine = Engine(module, config.train, accumulation, world)
        if whole:
            whole.engine = engine
        if start:
            updates = self.state.step if self.state.updates is None else self.state.updates
            engine.restore_moments({**self._trained, **self._beside}, ckpt.read_moments(start), updates)
        self.trainer = Trainer(config.train, config.seed, self._method, module, engine, job.unit, rank, world)

    def _restore_parts(self, found: dict[str, Tensor]) -> None:
        """States of the parts, and what they train."""
        with torch.no_grad():
            for name, parameter in self._beside.items():
                parameter.copy_(_of_shape(found.pop(f"{_LEARNER}{name}", None), parameter, name))
        let_go = f"{_LEARNER}targets."  # of a target that learned and that nothing asks for any more
        self._method.restore({name: tensor for name, tensor in found.items() if not name.startswith(let_go)})

    def _held(self) -> dict[str, Tensor]:
        return {name: self._model.get_buffer(name) for name in self._buffers}

    def count(self, record: Record) -> None:
        """Add a step to the totals, which checkpoints keep: the history may have lost lines."""
        totals = dict(self.state.totals)
        for name in (self._job.unit, "tokens", "target_passes", "seconds"):
            totals[name] = totals.get(name, 0) + record[name]
        totals["memory_gb"] = max(totals.get("memory_gb", 0), record["memory_gb"])
        self.state = replace(self.state, step=record["step"], totals=totals, updates=self.trainer.engine.updates)

    def _tell(self, text: str) -> None:
        self._emit({"kind": "event", "step": self.state.step, "text": text})

    def tell_events(self, step: int) -> None:
        """Send what the trainer noted beside the steps."""
        events, self.trainer.events = self.trainer.events, []
        for text in events:
            self._emit({"kind": "event", "step": step, "text": text})

    def save(self, step: int) -> None:
        """Write the checkpoint of a step.

        Raises:
            CheckpointNotWrittenError: on every worker, when rank 0 could not.
        """
        with part("checkpoint"):
            self._save(step)
        self._emit({"kind": "checkpoint", "step": step, "evaluate": self._plan.evaluation_due(step)})

    def _save(self, step: int) -> None:
        keep, engine = self._rank == 0, self.trainer.engine
        both = {**self._trained, **self._beside}
        parameters = engine.parameters_of(both, keep)
        moments = engine.moments_of(both, keep)
        parts = self._method.state()
        _require_same_keys(parts, self._world)
        failure = None
        if keep:
            beside = {f"{_LEARNER}{name}": parameters.pop(name) for name in self._beside}
            parameters |= {name: buffer.to("cpu", torch.float32, copy=True) for name, buffer in self._held().items()}
            state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in parts.items()}
            failure = _write(self._job, self.state, ckpt.Tensors(parameters, moments, {**state, **beside}))
        failure = _from_rank_0(failure, self._world)
        if failure:
            raise CheckpointNotWrittenError(failure)


_LEARNER = "learners/"
"""In front of the names of what parts train, in a checkpoint's states of parts."""


def _machine(run: _Run) -> Record:
    """What this worker computes on, as the banner has it."""
    device = run.trainer.engine.device
    module = run.trainer.module
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "precision": str(module.autocast or torch.float32).removeprefix("torch."),
        "bfloat16": has_bfloat16(device),
        "zero_stage": run.trainer.engine.zero_stage,
        "device_memory": torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
    }


def _start_of(job: TrainingJob, emit: Emit) -> str | None:
    """The checkpoint to go on from; a damaged one is said to be passed over."""
    return ckpt.newest_good(job.checkpoints, lambda text: emit({"kind": "event", "step": 0, "text": text}))


def _of_shape(value: Tensor | None, parameter: Tensor, name: str) -> Tensor:
    if value is None or value.shape != parameter.shape:
        found = "missing" if value is None else f"of shape {list(value.shape)}"
        raise UserError(f"the checkpoint's {name} is {found}, the model's of shape {list(parameter.shape)}; start a new run")
    return value


def _require_same_keys(state: Mapping[str, Tensor], world: int) -> None:
    """A part's state has to be the same on every worker, or it would depend on which one wrote it.

    Raises:
        ValueError: workers give other names or shapes.
    """
    if world == 1:
        return
    mine = {name: tuple(tensor.shape) for name, tensor in state.items()}
    all_of_them: list[dict[str, tuple[int, ...]]] = [{} for _ in range(world)]
    dist.all_gather_object(all_of_them, mine)
    if any(theirs != mine for theirs in all_of_them):
        raise ValueError(f"parts gave different states on different workers: {all_of_them}")


class CheckpointNotWrittenError(Exception):
    """A checkpoint could not be written. The message names the folder, the cause and what is left."""


def _load_parameters(path: str, expected: ckpt.CheckpointState, trainable: Mapping[str, Tensor]) -> ckpt.CheckpointState:
    """Lay a checkpoint's parameters over the model's.

    Raises:
        UserError: it is of another run, or a parameter is missing or has another shape.
    """
    found = ckpt.read_state(path)
    ckpt.check_same_run(found, expected, path)
    values = ckpt.read_trainable(path)
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(_of_shape(values.get(name), parameter, f"{path}: {name}"))
    return found


def _write(job: TrainingJob, state: ckpt.CheckpointState, tensors: ckpt.Tensors) -> str | None:
    """Write a checkpoint; why it could not be written, or None."""
    broken = [name for name, tensor in tensors.trainable.items() if not torch.isfinite(tensor).all()]
    last = ckpt.latest_checkpoint(job.checkpoints)
    kept = f"the last good checkpoint is {last}" if last else "there is no earlier checkpoint"
    if broken:
        return f"the parameters of step {state.step} are not finite ({broken[0]}), so no checkpoint was written; {kept}"
    try:
        ckpt.write_checkpoint(job.checkpoints, state, tensors)
    except OSError as error:
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
    line = json.dumps({"step": batches.step + 1, "epoch": batches.epoch, "ids": ids}) + "\n"
    name = f"rank-{rank}-pid-{os.getpid()}"
    if storage.is_remote(folder):  # no lines can be added to files there: a file a step
        storage.write_text(storage.join(folder, f"{name}-step-{batches.step + 1}.jsonl"), line)
        return
    local = storage.filesystem_of(folder)[1]
    os.makedirs(local, exist_ok=True)
    with open(os.path.join(local, f"{name}.jsonl"), "a", encoding="utf-8") as file:
        file.write(line)


def _nothing(_: Any) -> None:
    """Records of workers other than rank 0 are the same, so they are not sent; steps that are only measured are not kept."""
