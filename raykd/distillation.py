"""One run from a config to a measured student: the phases of `python -m raykd.distill`, in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
import torch
from transformers import WhisperForConditionalGeneration

from raykd import storage
from raykd.config import Config, dump_yaml
from raykd.data.corpus import REJECTS_FILE, WORDS_FILE, Corpus
from raykd.data.format import SpeechFormat
from raykd.data.prepare import prepare_corpus
from raykd.errors import UserError
from raykd.evaluation.measures import ON_REQUEST
from raykd.evaluation.recogniser import ModelChoice, lay_over
from raykd.evaluation.result import Evaluation
from raykd.evaluation.runner import EvaluationRequest, evaluate_model
from raykd.evaluation.speed import measure_speed
from raykd.models.banner import ModelFacts, RunFacts, banner_text, model_facts
from raykd.models.demo import demo_processor
from raykd.models.masked_lm import check_same_vocabulary, load_masked_lm
from raykd.models.precision import compute_dtype, has_bfloat16
from raykd.models.state import state_hash, trainable_names
from raykd.models.student import build_student, shares_encoder
from raykd.models.whisper import load_processor, load_whisper, save_whisper, speech_format
from raykd.runs import TrainingRun, ids_folder, opened_run
from raykd.teachers import ensure_mlm, ensure_teacher, evaluate_teacher
from raykd.tracking.card import write_card
from raykd.tracking.history import read_history
from raykd.tracking.metrics import Metrics, ModelMetrics, build_metrics
from raykd.tracking.mlflow_values import points_of_metrics
from raykd.tracking.progress import Progress
from raykd.tracking.report import write_report
from raykd.tracking.run_folder import RunFolder
from raykd.training.checkpoint import TRAINABLE
from raykd.training.cluster import Resources, device_name, plan_resources
from raykd.training.plan import TrainingPlan, accumulation_steps, effective_zero_stage, plan_training
from raykd.training.student_job import StudentJob


def distil(config: Config, resume: bool, progress: Progress) -> RunFolder:
    """Run a config to its end and return its folder. With `resume`, go on with the newest unfinished run of its name.

    Raises:
        UserError: something in the config or the data that the user can mend.
        RunError: training could not go on; checkpoints are kept.
    """
    resources = plan_resources(config.cluster)
    with opened_run(config, resume, resources.nodes, progress) as (config, run):
        if run.finished:
            return run
        teacher = None
        if config.teacher:
            teacher = ensure_teacher(config, lambda teacher, resume: distil(teacher, resume, progress))
        mlm = ensure_mlm(config, progress)
        config = _with_vocabulary(config, mlm, run)
        models = _make_models(config, run, teacher, mlm, progress)
        corpus = _prepare(config, run, models.speech_format, progress)
        training = TrainingRun(config, run, progress)
        with training.ended_well():
            _Distillation(training, models, corpus, resources).run_to_the_end()
    return run


def _with_vocabulary(config: Config, mlm: str | None, run: RunFolder) -> Config:
    """Hypotheses are checked against the words of the masked language model's text, unless the config says otherwise.

    The run's config.yaml names them then, as if the config had.
    """
    if config.evaluation.vocabulary or mlm is None or not storage.exists(storage.join(mlm, WORDS_FILE)):
        return config
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"vocabulary": mlm})})
    run.write_text("config.yaml", dump_yaml(config))
    return config


@dataclass(frozen=True)
class Models:
    """Teacher and student of a run before training, by what the other phases need of them."""

    teacher: str | None
    """Hub id or folder."""
    teacher_hash: str
    mlm: str | None
    """Folder of the masked language model that teaches."""
    mlm_hash: str
    teacher_shape: WhisperForConditionalGeneration | None
    """The teacher without its weights (on the meta device): sizes are all that the driver needs."""
    student_shape: WhisperForConditionalGeneration
    encoder_shared: bool
    speech_format: SpeechFormat


def _make_models(config: Config, run: RunFolder, teacher: str | None, mlm: str | None, progress: Progress) -> Models:
    """Load the teachers, build the student and store it as it is before the first step."""
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
    mlm_model = load_masked_lm(mlm) if mlm else None
    if mlm is not None:
        check_same_vocabulary(mlm, run.student_init_dir)
    encoder_shared = teacher_model is not None and shares_encoder(config.student, teacher_model, student)
    progress.done()
    return Models(
        teacher=teacher,
        teacher_hash=_hash_of(teacher_model),
        mlm=mlm,
        mlm_hash=_hash_of(mlm_model),
        teacher_shape=_shape_of(teacher_model) if teacher_model else None,
        student_shape=_shape_of(student),
        encoder_shared=encoder_shared,
        speech_format=speech_format(teacher, revision) if teacher else speech_format(run.student_init_dir),
    )


def _hash_of(model: torch.nn.Module | None) -> str:
    return state_hash(model, [name for name, _ in model.named_parameters()]) if model else ""


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
        advice = "raise data.dev_share above 0" if config.data.dev_share == 0 else "give a language three training rows or more"
        raise UserError(f"data.source: there are no dev utterances to choose the best checkpoint by; {advice}")
    progress.done()
    return corpus


class _Distillation:
    """The phases that have models and data: training with evaluation beside it, then measuring."""

    def __init__(self, training: TrainingRun, models: Models, corpus: Corpus, resources: Resources) -> None:
        assert isinstance(training.config, Config)
        self.training, self.config, self.run, self.progress = training, training.config, training.run, training.progress
        self.models, self.corpus, self.resources = models, corpus, resources
        self.tests = [split for split in self.config.data.test_splits if split in corpus.splits] or ["dev"]

    def run_to_the_end(self) -> None:
        """Train, write the best checkpoint as `student/`, and measure it beside its teacher."""
        job = self._job()
        plan = plan_training(self.config.train, job.order().steps_per_epoch)
        self.progress.say(banner_text(self._facts(plan)))
        best = self.training.train(job, self.resources, plan, self._dev_scores, score="wer")
        self._write_student(best)
        metrics = self._measure()
        self.run.write_text("metrics.json", metrics.to_json())
        write_card(self.run)
        write_report(self.run)
        storage.delete_dir(self.run.student_init_dir)
        if tracker := self.training.tracker:
            tracker.log_points(points_of_metrics(metrics))
            tracker.store_files()
            if self.config.tracking.log_model:
                tracker.log_student()

    def _job(self) -> StudentJob:
        models = self.models
        return StudentJob(
            config=self.config,
            corpus=self.corpus,
            checkpoints=self.run.checkpoints_dir,
            trained_ids=ids_folder(self.config, self.run),
            teacher_hash=" ".join(filter(None, (models.teacher_hash, models.mlm_hash))),
            speech_format=models.speech_format,
            student=self.run.student_init_dir,
            teacher=models.teacher,
            mlm=models.mlm,
        )

    def _dev_scores(self, checkpoint: str) -> Mapping[str, Any]:
        summary = self._evaluate_student(self.run.student_init_dir, "dev", storage.join(checkpoint, TRAINABLE)).summary
        return {key: summary[key] for key in ("wer", "cer", *ON_REQUEST, "per_language") if key in summary}

    def _measure(self) -> Metrics:
        """Score teacher and student on the test splits and time both."""
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
        return self._metrics(teacher, student, speed)

    def _evaluate_student(self, folder: str, split: str, weights: str | None = None) -> Evaluation:
        request = EvaluationRequest(ModelChoice(folder, weights=weights), self.corpus, split, self.config.evaluation)
        evaluation = evaluate_model(request, gpus_per_worker=self.resources.evaluation_gpus)
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

    def _facts(self, plan: TrainingPlan) -> RunFacts:
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
            bfloat16_available=has_bfloat16(device),
            cluster_gpus=int(ray.cluster_resources().get("GPU", 0)),
            workers=self.resources.workers,
            zero_stage=effective_zero_stage(config.train, self.resources.workers),
            batch_size=config.train.batch_size,
            accumulation=accumulation_steps(config.train, self.resources.workers),
            steps=plan.steps,
            steps_per_epoch=plan.steps_per_epoch,
            utterances=len(index),
            hours=float(index.duration_s.sum()) / 3600,
            languages=tuple(sorted(set(index.languages))),
            tokens_per_utterance=tokens,
            window_s=self.models.speech_format.window_s,
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
