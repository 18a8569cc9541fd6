"""One run from a config to a measured student: the phases of `python -m raykd.distill`, in order."""

import os
from dataclasses import dataclass
from typing import Any

import ray
import torch
from transformers import WhisperForConditionalGeneration

from raykd import storage
from raykd.config import Config, dump_yaml, load_config
from raykd.data.corpus import REJECTS_FILE, Corpus
from raykd.data.format import SpeechFormat
from raykd.data.order import EpochOrder
from raykd.data.prepare import prepare_corpus
from raykd.errors import RunError, UserError
from raykd.evaluation.recogniser import lay_over
from raykd.evaluation.runner import Evaluation, evaluate_model
from raykd.evaluation.speed import measure_speed
from raykd.models.banner import ModelFacts, RunFacts, banner_text, model_facts
from raykd.models.demo import demo_processor
from raykd.models.state import state_hash, trainable_names
from raykd.models.student import build_student, shares_encoder
from raykd.models.whisper import load_processor, load_whisper, save_whisper, speech_format
from raykd.teachers import ensure_teacher, evaluate_teacher
from raykd.tracking.card import write_card
from raykd.tracking.history import HistoryWriter, read_history
from raykd.tracking.metrics import Metrics, ModelMetrics, build_metrics
from raykd.tracking.mlflow import MlflowTracker, send_waiting
from raykd.tracking.progress import Progress
from raykd.tracking.report import write_report
from raykd.tracking.run_folder import RunFolder
from raykd.training.checkpoint import TRAINABLE, delete_checkpoint, list_checkpoints, step_of
from raykd.training.cluster import Resources, device_name, plan_resources
from raykd.training.loop import Record
from raykd.training.plan import accumulation_steps, plan_training
from raykd.training.selection import CheckpointSelection
from raykd.training.shell import train_on_cluster
from raykd.training.worker import TrainingJob, compute_dtype

_JOB_FOLDER = "runtime_resources/working_dir_files"
"""Part of the path of a Ray job's working folder."""
FIXED_ON_RESUME = ("seed", "data", "teacher", "student", "objective", "train")
"""Sections that decide what is trained on what: a run that changed them halfway would be no run of any config."""


def distil(config: Config, resume: bool, progress: Progress) -> RunFolder:
    """Run a config to its end and return its folder. With `resume`, go on with the newest unfinished run of its name.

    Raises:
        UserError: something in the config or the data that the user can mend.
        RunError: training could not go on; checkpoints are kept.
    """
    resources = plan_resources(config.cluster)
    _require_shared_storage(config, resources.nodes)
    if _JOB_FOLDER in os.getcwd() and storage.absolute(config.output_dir) != config.output_dir:
        progress.say(
            f"WARNING  output_dir: {config.output_dir} lies in the job's own folder ({os.getcwd()}), "
            "which Ray deletes in time; give an absolute path or s3://"
        )
    if config.train.record_ids and storage.is_remote(config.output_dir):
        raise UserError(
            f"train.record_ids: lines cannot be added to files in {config.output_dir}; give a local or mounted folder"
        )
    config = _with_absolute_paths(config)
    run = _open_run(config, resume)
    if run.finished:
        progress.say(f"{run.path} is finished; there is nothing to resume")
        if config.tracking.mlflow:
            send_waiting(config, run, progress.say)
        return run
    teacher = ensure_teacher(config, lambda teacher, resume: distil(teacher, resume, progress)) if config.teacher else None
    models = _make_models(config, run, teacher, progress)
    corpus = _prepare(config, run, models.speech_format, progress)
    distillation = _Distillation(config, run, models, corpus, resources, progress)
    try:
        distillation.train()
        distillation.measure()
    except OSError as error:
        distillation.fail()
        reason = error.strerror or str(error)
        raise RunError(
            f"{run.path}: cannot be written ({reason}); checkpoints are kept; mend it and go on with --resume"
        ) from None
    except BaseException:
        distillation.fail()
        raise
    return run


def _with_absolute_paths(config: Config) -> Config:
    """Workers run in other folders, so that a relative path would lead elsewhere."""
    data = config.data.model_copy(update={"cache_dir": storage.absolute(config.data.cache_dir)})
    changed: dict[str, Any] = {"output_dir": storage.absolute(config.output_dir), "data": data}
    if config.teacher is not None and storage.exists(storage.absolute(config.teacher.model)):
        changed["teacher"] = config.teacher.model_copy(update={"model": storage.absolute(config.teacher.model)})
    return config.model_copy(update=changed)


def _open_run(config: Config, resume: bool) -> RunFolder:
    if not resume:
        return RunFolder.create(config)
    run = RunFolder.latest(config.output_dir, config.name)
    before = _config_of(run)
    for section in FIXED_ON_RESUME:
        if getattr(before, section) != getattr(config, section):
            raise UserError(
                f"{section}: differs from the run to resume ({run.config_path}); "
                "give the same values, or start a new run without --resume"
            )
    run.write_text("config.yaml", dump_yaml(config))
    return run


def _config_of(run: RunFolder) -> Config:
    """The resolved config in a run folder."""
    with storage.local_copy(run.path) as folder:
        return load_config(f"{folder}/config.yaml")


def _require_shared_storage(config: Config, nodes: int) -> None:
    """With several nodes, what one writes the others must be able to read.

    Raises:
        UserError: a plain local path.
    """
    if nodes == 1:
        return
    for key, path in (("output_dir", config.output_dir), ("data.cache_dir", config.data.cache_dir)):
        if "://" not in path:
            name = os.path.basename(path.rstrip("/"))
            raise UserError(
                f"{key}: {path} is a local path, but the cluster has {nodes} nodes that must all read it; "
                f"give a shared one such as s3://bucket/{name}, or file:///mnt/shared/{name} for a folder mounted on every node"
            )


@dataclass(frozen=True)
class Models:
    """Teacher and student of a run before training, by what the other phases need of them."""

    teacher: str | None
    """Hub id or folder."""
    teacher_hash: str
    teacher_shape: WhisperForConditionalGeneration | None
    """The teacher without its weights (on the meta device): sizes are all that the driver needs."""
    student_shape: WhisperForConditionalGeneration
    encoder_shared: bool
    speech_format: SpeechFormat


def _make_models(config: Config, run: RunFolder, teacher: str | None, progress: Progress) -> Models:
    """Load the teacher, build the student and store it as it is before the first step."""
    progress.phase("models")
    revision = config.teacher.revision if config.teacher else None
    teacher_model = load_whisper(teacher, torch.float32, revision) if teacher else None
    student = build_student(config.student, teacher_model, config.seed)
    if not storage.exists(storage.join(run.student_init_dir, "config.json")):
        if config.student.init == "scratch":
            processor = demo_processor(config.student.scratch)
        elif config.student.init == "teacher":
            assert teacher is not None
            processor = load_processor(teacher, revision)
        else:
            processor = load_processor(config.student.init, config.student.revision)
        save_whisper(student, processor, run.student_init_dir)
    teacher_hash = state_hash(teacher_model, [name for name, _ in teacher_model.named_parameters()]) if teacher_model else ""
    encoder_shared = teacher_model is not None and shares_encoder(config.student, teacher_model, student)
    progress.done()
    return Models(
        teacher=teacher,
        teacher_hash=teacher_hash,
        teacher_shape=_shape_of(teacher_model) if teacher_model else None,
        student_shape=_shape_of(student),
        encoder_shared=encoder_shared,
        speech_format=speech_format(teacher, revision) if teacher else speech_format(run.student_init_dir),
    )


def _shape_of(model: WhisperForConditionalGeneration) -> WhisperForConditionalGeneration:
    """The model without its weights."""
    shape = model.to("meta")  # type: ignore[arg-type]
    shape.tie_weights()  # moving to the meta device gives each name a parameter of its own
    return shape


def _prepare(config: Config, run: RunFolder, wanted: SpeechFormat, progress: Progress) -> Corpus:
    """Speech to mel and labels, once; the rejects are copied into the run folder."""
    progress.phase("data", unit="rows")
    corpus = prepare_corpus(
        config.data,
        wanted,
        progress=lambda done, rejected: progress.update(done, note=f"{rejected} rejected" if rejected else ""),
    )
    storage.write_bytes(run.rejects_path, storage.read_bytes(storage.join(corpus.path, REJECTS_FILE)))
    if "train" not in corpus.splits:
        raise UserError(f"data.source: the data has only {', '.join(corpus.splits)}; give rows whose split is train (or none)")
    if "dev" not in corpus.splits:
        raise UserError(
            "data.source: there are no dev utterances to choose the best checkpoint by; raise data.dev_share above 0"
        )
    progress.done()
    return corpus


class _Distillation:
    """The phases that have models and data: training with evaluation beside it, then measuring."""

    def __init__(
        self, config: Config, run: RunFolder, models: Models, corpus: Corpus, resources: Resources, progress: Progress
    ) -> None:
        self.config, self.run, self.models, self.corpus = config, run, models, corpus
        self.resources, self.progress = resources, progress
        self.history = HistoryWriter(run.history_path)
        self.tracker = MlflowTracker(config, run, say=progress.say) if config.tracking.mlflow else None
        self.tests = [split for split in config.data.test_splits if split in corpus.splits] or ["dev"]
        order = EpochOrder(corpus.index("train"), config.seed, config.train.batch_size, config.data.mix)
        self.plan = plan_training(config.train, order.steps_per_epoch)
        self._last_step = 0

    def train(self) -> None:
        """Train to the end of the plan, then write the best checkpoint as `student/`."""
        self.progress.say(banner_text(self._facts()))
        start = self._start()
        self.history.rewind(step_of(start) if start else 0)
        scored = read_history(self.run.history_path).eval
        selection = CheckpointSelection(
            self.run.checkpoints_dir,
            self.config.train.keep_checkpoints,
            evaluate=lambda path: (
                self._evaluate_student(self.run.student_init_dir, "dev", storage.join(path, TRAINABLE)).summary
            ),
            on_score=self._on_dev_score,
            known_wer={record["step"]: record["wer"] for record in scored if record["split"] == "dev"},
        )
        if start and self.plan.evaluation_due(step_of(start)):
            selection.written(step_of(start), evaluate=True)
        self.progress.phase("training", total=self.plan.steps, unit="steps", done=step_of(start) if start else 0)

        def on_record(record: Record) -> None:
            if record["kind"] == "checkpoint":
                self.history.flush()
                selection.written(record["step"], record["evaluate"])
            else:
                self._on_record(record)

        train_on_cluster(self._job(), self.resources, self.run.at("ray_train"), on_record)
        best = selection.best()
        self.progress.done()
        self._write_student(best)

    def measure(self) -> None:
        """Score teacher and student on the test splits, time both, and write what the run leaves behind."""
        self.history.flush()
        self.progress.phase("evaluating", total=len(self.tests) + 1, unit="parts")
        teacher, student = {}, {}
        for number, split in enumerate(self.tests):
            if self.models.teacher is not None:
                teacher[split] = self._evaluate_teacher(split)
            student[split] = self._evaluate_student(self.run.student_dir, split)
            self.progress.update(number + 1, note=f"{split} WER {100 * student[split].summary['wer']:.2f} %")
        speed = self._speed()
        self.progress.update(len(self.tests) + 1)
        self.progress.done()
        metrics = self._metrics(teacher, student, speed)
        self.run.write_text("metrics.json", metrics.to_json())
        write_card(self.run)
        write_report(self.run)
        storage.delete_dir(self.run.student_init_dir)
        if self.tracker:
            self.tracker.summary(metrics)
            self.tracker.store_files()
            if self.config.tracking.log_model:
                self.tracker.log_student()
            self.tracker.close()

    def _start(self) -> str | None:
        """The checkpoint to go on from: the newest whose steps are all in the history.

        Workers that outlive a killed driver for a moment may write later ones, but nobody heard of their steps.
        """
        recorded = {record["step"] for record in read_history(self.run.history_path).train}
        for path in reversed(list_checkpoints(self.run.checkpoints_dir)):
            if recorded.issuperset(range(1, step_of(path) + 1)):
                return path
            delete_checkpoint(path)
        return None

    def fail(self) -> None:
        """Keep what was recorded of a run that ends early."""
        self.history.flush()
        if self.tracker:
            self.tracker.close("FAILED")

    def _job(self) -> TrainingJob:
        return TrainingJob(
            config=self.config,
            corpus=self.corpus,
            speech_format=self.models.speech_format,
            student=self.run.student_init_dir,
            teacher=self.models.teacher,
            teacher_hash=self.models.teacher_hash,
            checkpoints=self.run.checkpoints_dir,
            trained_ids=storage.filesystem_of(self.run.at("trained_ids"))[1] if self.config.train.record_ids else None,
        )

    def _on_record(self, record: Record) -> None:
        if record["kind"] == "started":
            self._on_start(record["step"])
            return
        if record["kind"] == "stopped":
            record = {"kind": "event", "step": self._last_step, "text": record["reason"]}
        self._last_step = max(self._last_step, record["step"])
        self.history.record(record)
        self.progress.record(record)
        logged = record["kind"] != "train" or record["step"] % self.config.tracking.log_every == 0 or record["step"] == 1
        if self.tracker and logged:
            self.tracker.record(record)

    def _on_start(self, step: int) -> None:
        """The workers start; again, when one was lost."""
        if self._last_step > step:
            text = (
                f"a training worker was lost after step {self._last_step}; training goes on from the checkpoint of step {step}"
            )
            self.history.rewind(step)
            self.history.record({"kind": "event", "step": step, "text": text})
            self.progress.say(text)
        self._last_step = step

    def _on_dev_score(self, step: int, summary: dict[str, Any]) -> None:
        scores = {key: summary[key] for key in ("wer", "cer", "per_language")}
        self._on_record({"kind": "eval", "step": step, "split": "dev", **scores})

    def _evaluate_student(self, folder: str, split: str, weights: str | None = None) -> Evaluation:
        evaluation = evaluate_model(
            folder,
            self.corpus,
            split,
            self.config.evaluation,
            weights=weights,
            gpus_per_worker=self.resources.evaluation_gpus,
        )
        if weights is None:
            evaluation.save_rows(self.run.evaluation_path("student", split))
        return evaluation

    def _evaluate_teacher(self, split: str) -> Evaluation:
        assert self.models.teacher is not None
        evaluation = evaluate_teacher(
            self.models.teacher, self.models.teacher_hash, self.corpus, split, self.config, self.resources.evaluation_gpus
        )
        evaluation.save_rows(self.run.evaluation_path("teacher", split))
        return evaluation

    def _write_student(self, checkpoint: str) -> None:
        student = load_whisper(self.run.student_init_dir)
        lay_over(student, storage.join(checkpoint, TRAINABLE))
        save_whisper(student, load_processor(self.run.student_init_dir), self.run.student_dir)

    def _speed(self) -> dict[str, dict[str, float]]:
        if self.models.teacher is None:
            return {}
        return measure_speed(
            self.models.teacher,
            self.run.student_dir,
            self.corpus,
            self.tests[0],
            self.config.evaluation,
            teacher_revision=self.config.teacher.revision if self.config.teacher else None,
            gpus=self.resources.evaluation_gpus,
        )

    def _metrics(
        self, teacher: dict[str, Evaluation], student: dict[str, Evaluation], speed: dict[str, dict[str, float]]
    ) -> Metrics:
        def model_metrics(model: WhisperForConditionalGeneration, evaluations: dict[str, Evaluation]) -> ModelMetrics:
            params = sum(parameter.numel() for parameter in model.parameters())
            return ModelMetrics.of(params, {split: evaluation.summary for split, evaluation in evaluations.items()})

        steps = read_history(self.run.history_path).train
        utterances, wall_s = sum(record["utterances"] for record in steps), sum(record["seconds"] for record in steps)
        return build_metrics(
            teacher=model_metrics(self.models.teacher_shape, teacher) if self.models.teacher_shape is not None else None,
            student=model_metrics(self.models.student_shape, student),
            train={
                "steps": len(steps),
                "utterances_seen": utterances,
                "utterances_per_s": utterances / max(wall_s, 1e-9),
                "wall_s": wall_s,
                "tokens": sum(record["tokens"] for record in steps),
            },
            speed=speed,
            data=self.corpus.summary,
        )

    def _facts(self) -> RunFacts:
        config, index = self.config, self.corpus.index("train")
        tokens = float(index.n_tokens.mean())
        on_gpu = self.resources.gpus_per_worker > 0
        device = torch.device("cuda" if on_gpu else "cpu")
        student_dtype = compute_dtype(config.train.precision, device)
        teacher: ModelFacts | None = None
        if self.models.teacher_shape is not None and config.teacher is not None:
            dtype = compute_dtype(config.teacher.dtype, device)
            teacher = model_facts(config.teacher.model, self.models.teacher_shape, tokens, _name(dtype))
        return RunFacts(
            name=self.run.name,
            folder=self.run.path,
            student=model_facts(
                config.student.init, self.models.student_shape, tokens, _name(student_dtype), self.models.encoder_shared
            ),
            teacher=teacher,
            encoder_frozen=not any(name.startswith("model.encoder") for name in trainable_names(self.models.student_shape)),
            encoder_shared=self.models.encoder_shared,
            teacher_sharded=config.teacher is not None and config.teacher.sharded,
            device=device_name(on_gpu),
            on_gpu=on_gpu,
            bfloat16_available=on_gpu,
            cluster_gpus=int(ray.cluster_resources().get("GPU", 0)),
            workers=self.resources.workers,
            zero_stage=config.train.zero_stage,
            batch_size=config.train.batch_size,
            accumulation=accumulation_steps(config.train, self.resources.workers),
            steps=self.plan.steps,
            steps_per_epoch=self.plan.steps_per_epoch,
            utterances=len(index),
            hours=float(index.duration_s.sum()) / 3600,
            languages=tuple(sorted(set(index.languages))),
            tokens_per_utterance=tokens,
            window_s=self.models.speech_format.window_s,
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
