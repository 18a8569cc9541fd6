"""What a run will need, from its config, models and data, and with `--check` from its first steps too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import ray
from transformers import WhisperForConditionalGeneration

from raykd import storage
from raykd.config import Config
from raykd.data.corpus import Corpus
from raykd.errors import UserError
from raykd.models.banner import banner_text
from raykd.models.facts import ModelFacts, RunFacts, model_facts
from raykd.models.forecast import epoch_seconds
from raykd.models.size import ParameterCount
from raykd.models.state import trainable_names
from raykd.models.window import heard_frames
from raykd.parts.outside import load_parts_file
from raykd.parts.targets.cached import CachedTarget, unanswerable
from raykd.parts.targets.target import TEACHER
from raykd.parts.targets.whisper import WhisperTarget
from raykd.parts.timing import OTHER, PARTS
from raykd.tracking.progress import Progress, duration
from raykd.tracking.run_folder import RunFolder
from raykd.tracking.table import CellTable
from raykd.training.cluster import Resources
from raykd.training.loop import Record
from raykd.training.plan import TrainingPlan, accumulation_steps
from raykd.training.profiling import WARM_UP
from raykd.training.shell import train_on_cluster
from raykd.training.student_job import StudentJob

MEASURED_STEPS = 12


@dataclass(frozen=True)
class Shapes:
    """Teacher and student without their weights (on the meta device)."""

    teacher: WhisperForConditionalGeneration | None
    student: WhisperForConditionalGeneration
    encoder_shared: bool
    window_s: float


def run_facts(
    config: Config, run: RunFolder, shapes: Shapes, corpus: Corpus, resources: Resources, plan: TrainingPlan, machine: Record
) -> RunFacts:
    """`machine`: what the workers say that they compute on."""
    index = corpus.index("train")
    tokens = float(index.n_tokens.mean())
    teacher: ModelFacts | None = None
    if shapes.teacher is not None and config.teacher is not None:
        dtype = "bfloat16" if config.teacher.dtype == "auto" and machine["bfloat16"] else config.teacher.dtype
        teacher = model_facts(config.teacher.model, shapes.teacher, tokens, "float32" if dtype == "auto" else dtype)
        taught = config.method.targets[TEACHER]
        trained = taught.trained_of(shapes.teacher) if isinstance(taught, WhisperTarget) else 0
        teacher = replace(teacher, parameters=ParameterCount(teacher.parameters.total, trained))
    shared = shapes.encoder_shared and config.student.window == "whole"
    frames = heard_frames(shapes.student.config, round(float(index.n_frames.mean())))
    student = model_facts(config.student.origin, shapes.student, tokens, machine["precision"], shared, frames)
    kept = config.teacher.stores() if isinstance(config.teacher, CachedTarget) else {}
    return RunFacts(
        name=run.name,
        folder=run.path,
        student=student,
        teacher=teacher,
        encoder_frozen=not any(name.startswith("model.encoder") for name in trainable_names(shapes.student)),
        encoder_shared=shared,
        teacher_sharded=config.teacher is not None and config.teacher.sharded,
        device=machine["device"],
        on_gpu=machine["device"] != "CPU",
        bfloat16_available=machine["bfloat16"],
        cluster_gpus=int(ray.cluster_resources().get("GPU", 0)),
        workers=resources.workers,
        zero_stage=machine["zero_stage"],
        parts=tuple(load_parts_file(path).label for path in config.parts),
        batch_size=config.train.batch_size,
        accumulation=accumulation_steps(config.train, resources.workers),
        steps=plan.steps,
        steps_per_epoch=plan.steps_per_epoch,
        utterances=int(index.n_utterances.sum()),
        windows=len(index),
        hours=float(index.duration_s.sum()) / 3600,
        languages=tuple(sorted(set(index.languages))),
        tokens_per_utterance=tokens,
        window_s=shapes.window_s,
        copied=config.student.from_teacher,
        kept=frozenset(kept),
        cache=config.cache,
        cacheable=not any(unanswerable(config.method)),
        keep_checkpoints=config.train.keep_checkpoints,
        memory=machine["device_memory"] or _memory_of_a_worker(resources),
        free_disk=storage.free_bytes(run.path),
    )


def _memory_of_a_worker(resources: Resources) -> int | None:
    """Its share of a machine's memory that Ray found free when it started."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total = min((node.get("memory", 0) + node.get("object_store_memory", 0) for node in nodes), default=0)
    workers_per_node = -(-resources.workers // max(1, len(nodes)))
    return int(total / workers_per_node) or None


def profile_of(
    job: StudentJob, resources: Resources, steps: int, folder: str, storage_path: str, progress: Progress
) -> CellTable:
    """What each part of so many steps takes, after some that warm up. `folder`: for the trace; `storage_path`: Ray Train's.

    Raises:
        UserError: the run has no more steps than those that warm up.
        RunError: a worker stopped, as it would in training.
    """
    found: list[Record] = []

    def on_record(record: Record) -> None:
        if record["kind"] == "train":
            progress.record(record)
        elif record["kind"] == "profile":
            found.append(record)

    progress.phase("measuring", total=steps + WARM_UP, unit="steps")
    train_on_cluster(replace(job, first_steps=steps + WARM_UP, profile=folder), resources, storage_path, on_record)
    progress.done()
    measured = found[0]["step"] - WARM_UP
    if not found[0]["seconds"]:
        raise UserError(f"--profile: the run has {found[0]['step']} steps, and the first {WARM_UP} are not measured")
    return parts_table(found[0]["seconds"], measured)


def parts_table(seconds: Mapping[str, float], steps: int) -> CellTable:
    """Milliseconds a step and share of each part."""
    total = sum(seconds.values())
    rows = [
        (name, f"{1000 * seconds[name] / steps:.1f}", f"{100 * seconds[name] / total:.1f} %")
        for name in (*PARTS, OTHER)
        if name in seconds
    ]
    rows.append(("together", f"{1000 * total / steps:.1f}", "100.0 %"))
    note = f"Mean of {steps} steps of the first worker. The device was waited for between parts, so nothing overlaps here."
    return CellTable("Where a step's time goes", ("part", "ms a step", "share"), tuple(rows), note, 1)


def measured_forecast(
    job: StudentJob,
    resources: Resources,
    plan: TrainingPlan,
    facts: Callable[[Record], RunFacts],
    folder: str,
    progress: Progress,
) -> str:
    """The banner, and what the first steps of a run say of its time and memory. `facts` takes the record of the workers' start;
    `folder` is Ray Train's.

    Raises:
        RunError: a worker stopped, as it would in training.
    """
    started: list[Record] = []
    steps: list[Record] = []

    def on_record(record: Record) -> None:
        if record["kind"] == "started":
            started.append(record)
        elif record["kind"] == "train":
            steps.append(record)
            progress.update(len(steps))

    progress.phase("measuring", total=min(MEASURED_STEPS, plan.steps), unit="steps")
    train_on_cluster(replace(job, first_steps=MEASURED_STEPS), resources, folder, on_record)
    progress.done()
    epoch_s = epoch_seconds([record["seconds"] for record in steps], plan.steps_per_epoch)
    whole_s = epoch_s * plan.steps / plan.steps_per_epoch
    libraries = ", Python and libraries included" if started[0]["device"] == "CPU" else ""
    rows = [
        (
            "time",
            f"{duration(epoch_s)} an epoch, {duration(whole_s)} for all steps, without evaluation (of {len(steps)} measured)",
        ),
        ("measured", f"{steps[-1]['memory_gb']:.2f} GB of memory at most on one worker{libraries}"),
    ]
    banner = banner_text(facts(started[0]))
    return "\n".join([banner, *(f"  {subject:<9}{text}" for subject, text in rows)])
