"""One run from a config to a measured student: the phases of `python -m raykd.distill`, in order."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration

from raykd import storage
from raykd.config import Config, dump_yaml
from raykd.config.base import Mark, marked
from raykd.config.training import TrackingConfig
from raykd.data.corpus import REJECTS_FILE, WORDS_FILE, Corpus
from raykd.data.format import SpeechFormat
from raykd.data.look import look_at, warnings_of
from raykd.data.pack_corpus import packed_corpus
from raykd.data.prepare import prepare_corpus
from raykd.errors import UserError
from raykd.evaluation.measures import ON_REQUEST
from raykd.evaluation.recogniser import ModelChoice, lay_over
from raykd.evaluation.result import Evaluation
from raykd.evaluation.runner import EvaluationRequest, evaluate_model
from raykd.evaluation.speed import measure_speed
from raykd.forecast import Shapes, measured_forecast, profile_of, run_facts
from raykd.models.banner import banner_text
from raykd.models.experts import active_parameters
from raykd.models.facts import RunFacts
from raykd.models.masked_lm import check_same_vocabulary, load_masked_lm
from raykd.models.pairs import check_compatible
from raykd.models.pruning import prune_tokenizer, prune_whisper
from raykd.models.state import whole_hash
from raykd.models.whisper import load_processor, load_whisper, save_whisper, speech_format
from raykd.parts.outside import outside_hash
from raykd.parts.students.vocabulary import kept_tokens_of
from raykd.parts.targets.cached import CachedTarget, cache_folder
from raykd.parts.targets.target import TEACHER, Ready, Target
from raykd.runs import TrainingRun, ids_folder, opened_run
from raykd.teachers import ensure_models, evaluate_teacher
from raykd.tracking.card import write_card
from raykd.tracking.metrics import Metrics, ModelMetrics, build_metrics
from raykd.tracking.mlflow_values import points_of_metrics
from raykd.tracking.progress import Progress
from raykd.tracking.report import write_report
from raykd.tracking.run_folder import RunFolder
from raykd.tracking.table import CellTable
from raykd.training.checkpoint import TRAINABLE
from raykd.training.cluster import Resources, plan_resources
from raykd.training.loop import Record
from raykd.training.plan import TrainingPlan, plan_training
from raykd.training.profiling import TRACE
from raykd.training.student_job import StudentJob


def distil(config: Config, resume: bool, progress: Progress) -> RunFolder:
    """Run a config to its end and return its folder. With `resume`, go on with the newest unfinished run of its name.

    Raises:
        UserError: something in the config or the data that the user can mend.
        RunError: training could not go on; checkpoints are kept.
    """
    resources = plan_resources(config.cluster)
    with opened_run(config, resume, resources.nodes, progress) as (config, run):
        if not run.finished:
            training, distillation = _ready(config, run, resources, progress)
            with training.ended_well():
                distillation.run_to_the_end()
    return run


def forecast(config: Config, progress: Progress) -> str:
    """What a run of this config would need and can be expected to reach. Data and models are prepared as for the run, a few
    steps are measured, and no run is kept.

    Raises:
        UserError: something in the config or the data that the user can mend.
        RunError: the steps could not be measured.
    """
    wanted = storage.absolute(storage.join(config.output_dir, config.name))
    with _looked_at(config, progress) as distillation:
        progress.say(distillation.look())
        return distillation.forecast(wanted)


def profile(config: Config, steps: int, progress: Progress) -> tuple[CellTable, str]:
    """What each part of some steps of this config takes, and where PyTorch's trace of them is: in `output_dir`, in
    `NAME-profile`. Data and models are prepared as for the run, and no run is kept.

    Raises:
        UserError: something in the config or the data that the user can mend.
        RunError: the steps could not be measured.
    """
    folder = storage.absolute(storage.join(config.output_dir, f"{config.name}-profile"))
    with _looked_at(config, progress) as distillation:
        return distillation.profile(steps, folder), storage.join(folder, TRACE)


def prepare(config: Config, progress: Progress) -> None:
    """Make what all runs with this config's data and teacher share, where it is missing: models that are trained first, the
    prepared corpus, and the teacher's scores.

    Raises:
        UserError: something in the config or the data that the user can mend.
        RunError: a model that is trained first could not be.
    """
    with _looked_at(config, progress) as distillation:
        distillation.score_teacher()


@contextmanager
def _looked_at(config: Config, progress: Progress) -> Iterator["_Distillation"]:
    """A run that is made ready and not kept."""
    resources = plan_resources(config.cluster)
    update = {"output_dir": storage.join(config.data.cache_dir, "checks"), "tracking": TrackingConfig(mlflow=False)}
    with opened_run(config.model_copy(update=update), False, resources.nodes, progress, kept=False) as (config, run):
        yield _ready(config, run, resources, progress)[1]


def _ready(config: Config, run: RunFolder, resources: Resources, progress: Progress) -> tuple[TrainingRun, "_Distillation"]:
    """Models and data of a run, made and checked."""
    # The run's own config keeps the names; all that comes now is told the folders of models that raykd trained.
    made = ensure_models(config, lambda teacher, resume: distil(teacher, resume, progress), progress)
    made = _with_vocabulary(config, made, run)
    models = _make_models(made, run, progress)
    corpus = _prepare(made, run, models.speech_format, progress)
    models = _with_own_tokens(made, models, corpus, run)
    training = TrainingRun(_checked(made, models, corpus), run, progress)
    return training, _Distillation(training, models, corpus, resources)


def _with_vocabulary(config: Config, made: Config, run: RunFolder) -> Config:
    """Hypotheses are checked against the words of the masked language model's text, unless the config says otherwise.

    The run's config.yaml names them then, as if the config had.
    """
    folders = [model for _, model, marks in marked(made) if Mark.MLM in marks]
    words = next((folder for folder in folders if storage.exists(storage.join(folder, WORDS_FILE))), None)
    if config.evaluation.vocabulary or words is None:
        return made
    update = {"evaluation": config.evaluation.model_copy(update={"vocabulary": words})}
    run.write_text("config.yaml", dump_yaml(config.model_copy(update=update)))
    return made.model_copy(update=update)


@dataclass(frozen=True)
class Models:
    """Teacher and student of a run before training, by what the other phases need of them."""

    teacher: str | None
    """Hub id or folder."""
    teacher_hash: str
    hashes: str
    """Of the weights of everything that teaches, in the order of the config."""
    encoder_hash: str
    """Of the weights of the teacher's encoder."""
    teacher_shape: WhisperForConditionalGeneration | None
    """The teacher without its weights (on the meta device): sizes are all that the driver needs."""
    student_shape: WhisperForConditionalGeneration
    encoder_shared: bool
    speech_format: SpeechFormat
    student: str
    """Folder of the student as it is before the first step."""
    kept_tokens: tuple[int, ...] | None = None
    """Of each of the student's tokens, its id in the corpus's vocabulary; None: that is its own."""


def _make_models(config: Config, run: RunFolder, progress: Progress) -> Models:
    """Load the teachers, build the student and store it as it is before the first step."""
    progress.phase("models")
    teacher = config.teacher.model if config.teacher else None
    revision = config.teacher.revision if config.teacher else None
    teacher_model = load_whisper(teacher, torch.float32, revision) if teacher else None
    student = config.student.made(teacher_model, config.seed)
    config.student.freeze(student)
    processor = config.student.processor(teacher, revision)
    run.make_once(run.student_init_dir, lambda: save_whisper(student, processor, run.student_init_dir))
    encoder = config.student.learner(student).frozen_encoder
    encoder_shared = teacher_model is not None and encoder is not None and encoder.is_copy_of(teacher_model)
    teacher_hash = whole_hash(teacher_model) if teacher_model else ""
    encoder_hash = whole_hash(teacher_model.model.encoder) if teacher_model else ""
    hashes = [teacher_hash] if teacher_model else []
    hashes += [_hash_of_target(target, student, run) for name, target in config.method.targets.items() if name != TEACHER]
    if teacher_model is not None:
        check_compatible(teacher_model.config, student.config)
    progress.done()
    return Models(
        teacher=teacher,
        teacher_hash=teacher_hash,
        hashes=" ".join(filter(None, hashes)),
        encoder_hash=encoder_hash,
        teacher_shape=_shape_of(teacher_model) if teacher_model else None,
        student_shape=_shape_of(student),
        encoder_shared=encoder_shared,
        speech_format=speech_format(teacher, revision) if teacher else speech_format(run.student_init_dir),
        student=run.student_init_dir,
    )


def _with_own_tokens(config: Config, models: Models, corpus: Corpus, run: RunFolder) -> Models:
    """A student with the tokens that its config says, stored beside the one as it was made."""
    teacher = models.teacher_shape.config if models.teacher_shape is not None else None
    kept = kept_tokens_of(config.student, models.student_shape.config, teacher, models.speech_format, corpus)
    if config.student.vocabulary == "whole" or kept is None:
        return replace(models, kept_tokens=kept)

    def save() -> None:
        whole, processor = load_whisper(run.student_init_dir), load_processor(run.student_init_dir)
        prune_whisper(whole, kept)
        processor.tokenizer = prune_tokenizer(processor.tokenizer, kept)
        save_whisper(whole, processor, run.student_pruned_dir)

    run.make_once(run.student_pruned_dir, save)
    student = load_whisper(run.student_pruned_dir)
    config.student.freeze(student)
    return replace(models, student=run.student_pruned_dir, student_shape=_shape_of(student), kept_tokens=kept)


def _hash_of_target(target: Target, student: WhisperForConditionalGeneration, run: RunFolder) -> str:
    """Of the weights of the models that a target names, which must speak the student's vocabulary."""
    hashes = []
    for _, model, marks in marked(target):
        if Mark.MLM in marks:
            check_same_vocabulary(model, run.student_init_dir)
            hashes.append(whole_hash(load_masked_lm(model)))
        elif Mark.WHISPER in marks:
            loaded = load_whisper(model, revision=getattr(target, "revision", None))
            check_compatible(loaded.config, student.config)
            hashes.append(whole_hash(loaded))
    return " ".join(hashes)


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
    for warning in warnings_of(corpus, config.data, wanted):
        progress.say(f"WARNING  {warning}")
    corpus = packed_corpus(corpus, config.data, wanted, partial(progress.update, note="packed"))
    progress.done()
    return corpus


def _checked(config: Config, models: Models, corpus: Corpus) -> Config:
    """The config with the folder of the teacher's cache, once every target has found that it can teach this.

    Raises:
        UserError: a target cannot, such as a cache that was made of other data.
    """
    hashes = models.teacher_hash, models.encoder_hash
    ready = Ready(config.method, corpus, models.speech_format, config.seed, *hashes, models.kept_tokens)
    if isinstance(config.teacher, CachedTarget) and config.teacher.path is None:
        teacher = config.teacher.model_copy(update={"path": cache_folder(config.data.cache_dir, ready)})
        config = config.model_copy(update={"teacher": teacher})
    for target in config.method.targets.values():
        target.check(ready)
    return config


class _Distillation:
    """The phases that have models and data: training with evaluation beside it, then measuring."""

    def __init__(self, training: TrainingRun, models: Models, corpus: Corpus, resources: Resources) -> None:
        assert isinstance(training.config, Config)
        self.training, self.config, self.run, self.progress = training, training.config, training.run, training.progress
        self.models, self.corpus, self.resources = models, corpus, resources
        self.tests = corpus.tests(self.config.data.test_splits)

    def run_to_the_end(self) -> None:
        """Train, write the best checkpoint as `student/`, and measure it beside its teacher."""
        job = self._job()
        plan = plan_training(self.config.train, job.order().steps_per_epoch)

        def banner(machine: Record) -> str:
            return banner_text(self._facts(plan, machine))

        if tracker := self.training.tracker:
            tracker.log_data(*self._data())
        best = self.training.train(job, self.resources, plan, self._dev_scores, score="wer", banner=banner)
        shape = self._write_student(best)
        metrics = self._measure(shape)
        self.run.write_text("metrics.json", metrics.to_json())
        write_card(self.run)
        write_report(self.run)
        for folder in {self.run.student_init_dir, self.models.student}:
            storage.delete_dir(folder)
        if tracker := self.training.tracker:
            tracker.log_points(points_of_metrics(metrics))
            tracker.store_files()
            if self.config.tracking.log_model:
                tracker.log_student()

    def _data(self) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
        """Name, digest, source and size of what is trained on, for MLflow."""
        source = self.config.data.model_dump(mode="json", include={"source", "language", "pack"})
        name = "+".join(dict.fromkeys(one.kind for one in self.config.data.source))
        summary = self.corpus.summary
        return name, self.corpus.key, source, {key: summary[key] for key in ("utterances", "hours", "splits")}

    def look(self) -> str:
        """What would be trained on."""
        return "\n".join(look_at(self.corpus, self.config.data, self.models.speech_format))

    def forecast(self, folder: str) -> str:
        """What the run will need, and how long its first steps take. `folder`: where it would be."""
        job = self._job()
        plan = plan_training(self.config.train, job.order().steps_per_epoch)

        def facts(machine: Record) -> RunFacts:
            return replace(self._facts(plan, machine), folder=folder, free_disk=storage.free_bytes(folder))

        return measured_forecast(job, self.resources, plan, facts, self.run.at("ray_train"), self.progress)

    def profile(self, steps: int, folder: str) -> CellTable:
        """What each part of so many steps takes."""
        return profile_of(self._job(), self.resources, steps, folder, self.run.at("ray_train"), self.progress)

    def score_teacher(self) -> None:
        """On all that the student will be tested on; the scores are kept in the cache."""
        for split in self.tests if self.models.teacher is not None else ():
            self._evaluate_teacher(split)

    def _facts(self, plan: TrainingPlan, machine: Record) -> RunFacts:
        models = self.models
        shapes = Shapes(models.teacher_shape, models.student_shape, models.encoder_shared, models.speech_format.window_s)
        return run_facts(self.config, self.run, shapes, self.corpus, self.resources, plan, machine)

    def _job(self) -> StudentJob:
        models = self.models
        return StudentJob(
            config=self.config,
            corpus=self.corpus,
            checkpoints=self.run.checkpoints_dir,
            trained_ids=ids_folder(self.config, self.run),
            teacher_hash=models.hashes,
            parts_hash=outside_hash(self.config),
            speech_format=models.speech_format,
            student=models.student,
            kept_tokens=models.kept_tokens,
            encoder_shared=models.encoder_shared,
        )

    def _dev_scores(self, checkpoint: str) -> Mapping[str, Any]:
        summary = self._evaluate_student(self.models.student, "dev", storage.join(checkpoint, TRAINABLE)).summary
        return {key: summary[key] for key in ("wer", "cer", *ON_REQUEST, "per_language") if key in summary}

    def _measure(self, shape: WhisperForConditionalGeneration) -> Metrics:
        """Score teacher and student on the test splits and time both. `shape`: of the student that is given away."""
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
        return self._metrics(shape, teacher, student, speed)

    def _evaluate_student(self, folder: str, split: str, weights: str | None = None) -> Evaluation:
        request = EvaluationRequest(ModelChoice(folder, weights=weights), self.corpus, split, self.config.evaluation)
        resources = self.resources
        evaluation = evaluate_model(request, gpus_per_worker=resources.evaluation_gpus, share=resources.share)
        if weights is None:
            evaluation.save_rows(self.run.evaluation_path("student", split))
        return evaluation

    def _evaluate_teacher(self, split: str) -> Evaluation:
        assert self.models.teacher is not None
        evaluation = evaluate_teacher(
            self.models.teacher, self.models.teacher_hash, self.corpus, split, self.config, self.resources
        )
        evaluation.save_rows(self.run.evaluation_path("teacher", split))
        return evaluation

    def _write_student(self, checkpoint: str) -> WhisperForConditionalGeneration:
        """The student that is given away; its shape."""
        student = load_whisper(self.models.student)
        lay_over(student, storage.join(checkpoint, TRAINABLE))
        finished = self.config.student.finished(student)
        save_whisper(finished, load_processor(self.models.student), self.run.student_dir)
        return _shape_of(finished)

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
            share=self.resources.share,
        )

    def _metrics(
        self,
        shape: WhisperForConditionalGeneration,
        teacher: dict[str, Evaluation],
        student: dict[str, Evaluation],
        speed: dict[str, dict[str, float]],
    ) -> Metrics:
        def model_metrics(model: WhisperForConditionalGeneration, evaluations: dict[str, Evaluation]) -> ModelMetrics:
            params = sum(parameter.numel() for parameter in model.parameters())
            summaries = {split: evaluation.summary for split, evaluation in evaluations.items()}
            return ModelMetrics.of(params, summaries, active_parameters(model))

        totals = self.training.totals
        return build_metrics(
            teacher=model_metrics(self.models.teacher_shape, teacher) if self.models.teacher_shape is not None else None,
            student=model_metrics(shape, student),
            train={
                "steps": totals.steps,
                "utterances_seen": totals.rows,
                "utterances_per_s": totals.rows / max(totals.seconds, 1e-9),
                "wall_s": totals.seconds,
                "tokens": totals.tokens,
                "teacher_passes": totals.target_passes,
                "memory_gb": totals.memory_gb,
                "parameters": sum(one.numel() for one in self.models.student_shape.parameters() if one.requires_grad),
            },
            speed=speed,
            data=self.corpus.summary,
        )
