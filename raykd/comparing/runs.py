"""The runs of a comparison, one after the other, and what each is scored on. What is done already is not done again."""

import hashlib
import json
import os
from collections.abc import Iterator

from raykd import storage
from raykd.comparing.outcome import Job, Outcome, outcome_of, scored_rows
from raykd.comparing.scores import Scored
from raykd.config import Config
from raykd.config.compare import CompareConfig, merged, slug
from raykd.config.data import DataConfig
from raykd.config.load import config_from, read_yaml
from raykd.data.corpus import Corpus
from raykd.data.prepare import prepare_corpus
from raykd.distillation import distil
from raykd.errors import RunError, UserError
from raykd.evaluation.recogniser import ModelChoice
from raykd.evaluation.runner import EvaluationRequest, evaluate_model
from raykd.evaluation.speed import measure_speed
from raykd.models.experts import active_parameters
from raykd.models.state import whole_hash
from raykd.models.whisper import load_whisper, speech_format
from raykd.parts.students.pretrained import Pretrained
from raykd.runs import changed_keys
from raykd.teachers import ensure_whisper
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.training.cluster import plan_resources

WHOLE = "all"
"""Split of a test that names none."""
_KEPT = "compared"
"""Folder in a run folder: what a comparison measured of its student."""


def jobs_of(compare: CompareConfig, path: str) -> list[Job]:
    """All of them, in the order of the table and seed after seed, so that an early look has every method in it.

    Raises:
        UserError: a config that is wrong, with the method and the setting it comes from.
    """
    folder = storage.join(compare.output_dir, compare.name)
    base = compare.base
    if isinstance(base, str):
        beside = os.path.join(os.path.dirname(path), base)
        base = read_yaml(beside if os.path.isfile(beside) else base)
    jobs = []
    for seed in compare.seeds:
        for setting, of_setting in (compare.settings or {"": {}}).items():
            for method, of_method in compare.methods.items():
                model = of_method.get("model")
                if model is not None and seed != compare.seeds[0]:
                    continue
                as_it_is = {"student": {"kind": "pretrained", "model": model}, "objective": "ce"}
                changes = of_method if model is None else as_it_is
                named = {
                    "name": "-".join(filter(None, (slug(method), slug(setting), f"seed{seed}"))),
                    "output_dir": storage.join(folder, "runs"),
                    "seed": seed,
                }
                tree = {**merged(merged(base, of_setting), changes), **named}
                origin = f"{path}: {', '.join(filter(None, (method, setting)))}"
                try:
                    config = config_from(Config, tree, path)
                except UserError as error:
                    raise UserError(str(error).replace(path, origin)) from None
                # The config has found the model beside the file.
                found = config.student.model if isinstance(config.student, Pretrained) and model is not None else None
                jobs.append(Job(method, setting, None if model is not None else seed, config, found))
    return jobs


class Comparison:
    """Runs the jobs of a comparison in its folder."""

    def __init__(self, compare: CompareConfig, jobs: list[Job], progress: Progress, parent_run_id: str | None = None) -> None:
        self.compare, self.jobs, self.progress, self._parent = compare, jobs, progress, parent_run_id
        self.folder = storage.join(compare.output_dir, compare.name)
        self._gpus = plan_resources(jobs[0].config.cluster).evaluation_gpus
        self._corpora: dict[str, Corpus] = {}

    def outcomes(self) -> Iterator[Outcome | tuple[Job, str]]:
        """Of each job as it is done; of one that failed, why.

        Raises:
            UserError: what the user can mend.
        """
        models = {job.method: self._folder_of(job) for job in self.jobs if job.model is not None}
        timed_against = next(iter(models.values()), None) if self.compare.timed else None
        for number, job in enumerate(self.jobs):
            name = ", ".join(filter(None, (job.method, job.setting, "" if job.seed is None else f"seed {job.seed}")))
            self.progress.say(f"comparison: {number + 1} of {len(self.jobs)}: {name}")
            try:
                if job.model is not None:
                    yield self._of_model(job, models[job.method])
                else:
                    yield self._of_run(job, timed_against)
            except RunError as error:
                yield job, str(error)

    def _folder_of(self, job: Job) -> str:
        """Of a model as it is, trained first where a raykd config names it."""
        assert job.model is not None

        def train(config: Config, resume: bool) -> RunFolder:
            return distil(config, resume, self.progress)

        return ensure_whisper(job.model, job.config, train, self.progress.say)

    def _of_model(self, job: Job, model: str) -> Outcome:
        whisper = load_whisper(model)
        kept_in = storage.join(self.folder, "models", f"{slug(job.method)}-{whole_hash(whisper)[:16]}")
        stored = float(sum(parameter.numel() for parameter in whisper.parameters()))
        if self.compare.tests:
            scored = self._tests(job, model, kept_in)
        else:
            corpus = self._corpus(job.config.data, model)
            splits = corpus.tests(job.config.data.test_splits)
            scored = {split: self._scored(job, model, kept_in, corpus, split) for split in splits}
        return Outcome(job, scored, {"trained": 0.0, "stored": stored, "active": active_parameters(whisper) or stored})

    def _of_run(self, job: Job, timed_against: str | None) -> Outcome:
        run = self._trained(job)
        alone = outcome_of(run, job)
        timed = timed_against is not None and job.seed == self.compare.seeds[0]
        speedup = self._speedup(job, run, str(timed_against)) if timed else None
        kept_in = run.at(_KEPT)
        scored = self._tests(job, run.student_dir, kept_in) if self.compare.tests else alone.scored
        return Outcome(job, scored, {**alone.facts, "speedup": speedup}, run.path)

    def _trained(self, job: Job) -> RunFolder:
        config = job.config
        if self._parent:
            tracking = config.tracking.model_copy(update={"parent_run": self._parent})
            config = config.model_copy(update={"tracking": tracking})
        found = RunFolder.find(config.output_dir, config.name)
        if found is not None:
            changed = changed_keys(config, found)
            if changed:
                raise UserError(
                    f"{found.path}: was run with other settings ({', '.join(changed[:3])}); delete it, or give the comparison "
                    "another name"
                )
        if found is not None and found.finished:
            return found
        return distil(config, found is not None, self.progress)

    def _tests(self, job: Job, model: str, kept_in: str) -> dict[str, Scored]:
        found = {}
        for name, test in self.compare.tests.items():
            data = test.data.model_copy(update={"cache_dir": job.config.data.cache_dir})
            corpus = self._corpus(data, model)
            split = next((split for split in (test.split, WHOLE) if split in corpus.splits), None)
            if split is None:
                raise UserError(f"tests.{name}.split: the data has no split {test.split}; it has {', '.join(corpus.splits)}")
            found[name] = self._scored(job, model, kept_in, corpus, split)
        return found

    def _corpus(self, data: DataConfig, model: str) -> Corpus:
        wanted = speech_format(model)
        key = repr((data, wanted.n_mels, wanted.window_frames, wanted.max_label_tokens))
        if key not in self._corpora:
            self.progress.phase("data", unit="rows")
            self._corpora[key] = prepare_corpus(data, wanted, progress=lambda done, _: self.progress.update(done))
            self.progress.done()
        return self._corpora[key]

    def _scored(self, job: Job, model: str, kept_in: str, corpus: Corpus, split: str) -> Scored:
        """Scored now, or before: scores are kept with the weights that they are of."""
        settings = job.config.evaluation.model_dump(mode="json")
        key = hashlib.sha256(json.dumps([corpus.key, split, settings], sort_keys=True).encode()).hexdigest()[:16]
        rows = storage.join(kept_in, f"{slug(split)}-{key}.parquet")
        summary = rows.removesuffix(".parquet") + ".json"
        if not storage.exists(summary):
            self.progress.phase(f"scoring on {split}", unit="utterances")
            request = EvaluationRequest(ModelChoice(model), corpus, split, job.config.evaluation)
            evaluation = evaluate_model(request, gpus_per_worker=self._gpus, progress=self.progress.update)
            self.progress.done()
            evaluation.save_rows(rows)
            evaluation.save_summary(summary)
        return scored_rows(storage.read_bytes(rows), json.loads(storage.read_bytes(summary)))

    def _speedup(self, job: Job, run: RunFolder, against: str) -> float | None:
        settings = job.config.evaluation.model_dump(mode="json")
        weights = whole_hash(load_whisper(against))
        key = hashlib.sha256(json.dumps([weights, settings], sort_keys=True).encode()).hexdigest()[:16]
        kept = run.at(storage.join(_KEPT, f"speed-{key}.json"))
        if not storage.exists(kept):
            corpus = self._corpus(job.config.data, run.student_dir)
            split = corpus.tests(job.config.data.test_splits)[0]
            speed = measure_speed(against, run.student_dir, corpus, split, job.config.evaluation, gpus=self._gpus)
            storage.write_text(kept, json.dumps(speed))
        first = next(iter(json.loads(storage.read_bytes(kept)).values()))
        return float(first["speedup"])
