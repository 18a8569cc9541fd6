"""The driver of a sweep: what all trials share is made once, then Ray Tune runs them."""

import json
import os
import random
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from raykd import storage
from raykd.config import Config, dump_yaml
from raykd.config.base import marked
from raykd.config.tune import Dimension, SweepConfig
from raykd.data.sources.recognise import with_kinds
from raykd.distillation import distil, prepare
from raykd.errors import RunError, UserError
from raykd.labelling.keep import kept_answers
from raykd.lease import Owner, leased
from raykd.parts.targets.cached import CachedTarget
from raykd.runs import with_absolute_paths
from raykd.storage import filesystem_of, is_remote
from raykd.teachers import ensure_models
from raykd.tracking.parent_run import ParentRun, parent_run
from raykd.tracking.progress import Progress
from raykd.tuning.board import Board
from raykd.tuning.record import ENDED, Record
from raykd.tuning.space import Coded, Space, short
from raykd.tuning.trial import AT, END, PAIR, WER, SweepJob, SweepTrial
from raykd.tuning.watch import Names, Seen, Watch

_TUNE = "tune"
"""Folder in the sweep's: what Ray Tune keeps to go on with."""
_ENVIRONMENT = ("MLFLOW_", "AWS_", "GOOGLE_APPLICATION_CREDENTIALS", "HF_")
"""Variables that a trial's process needs as the driver has them."""
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1e9",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "120",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_sweep(
    sweep: SweepConfig, space: Space, configs: list[Config], resume: bool, progress: Progress
) -> tuple[Record, ParentRun | None]:
    """Run all trials to their ends, or with `resume` those that are left; what became of them, and their parent in MLflow,
    which is still open. Ray must be initialised.

    `configs`: of the points that are known, whose models and data are made ready before the first trial.

    Raises:
        UserError: something that the user can mend.
        RunError: interrupted before all trials had ended.
    """
    folder = storage.join(sweep.output_dir, sweep.name)
    with leased(folder, _in_use(folder)):
        _make_ready(configs, sweep, progress)
        parent = parent_run(configs[0], folder, sweep.name, "sweep", _params(sweep), progress.say)
        return _tried(sweep, space, configs[0], folder, resume, parent), parent


def _in_use(folder: str) -> Any:
    def refuse(owner: Owner) -> None:
        raise UserError(f"{folder}: the sweep is in use by {owner}; wait for its end or stop it, and then use --resume")

    return refuse


def _make_ready(configs: list[Config], sweep: SweepConfig, progress: Progress) -> None:
    """Models that are trained first, corpora, kept answers and the teacher's scores, each once for all trials."""
    seen = set()
    for config in configs:
        models = [model for _, model, marks in marked(config) if any(mark.is_model for mark in marks)]
        sources = config.data.model_dump(mode="json"), config.model_dump(mode="json", include={"teacher", "student"})
        key = json.dumps([models, sources if isinstance(config.teacher, CachedTarget) else sources[0]], sort_keys=True)
        if key in seen:
            continue
        seen.add(key)
        if isinstance(config.teacher, CachedTarget) and config.teacher.path is None:
            made = ensure_models(
                with_absolute_paths(with_kinds(config)), lambda teacher, resume: distil(teacher, resume, progress), progress
            )
            kept_answers(made, sweep.cache, progress, gpus=1.0 if ray.cluster_resources().get("GPU") else 0.0)
        prepare(config, progress)


def _tried(sweep: SweepConfig, space: Space, config: Config, folder: str, resume: bool, parent: ParentRun | None) -> Record:
    record = Record.read(folder) if resume else Record(folder)
    points = [] if sweep.sampler == "tpe" else space.points()
    total = (len(points) or sweep.trials) * len(sweep.seeds)
    at_once = total if sweep.sampler == "pbt" else min(total, sweep.at_once or _fitting(config))
    if len(record.trials) == total and all(trial.state in ENDED for trial in record.trials.values()):
        return record
    job = SweepJob(
        sweep=sweep,
        path=storage.absolute(space.path),
        folder=os.getcwd(),
        share=1 / at_once,
        parent_run=parent.run_id if parent else config.tracking.parent_run,
        environment={key: value for key, value in os.environ.items() if key.startswith(_ENVIRONMENT)},
    )
    with Board(total) as board:
        seen = Seen(space, record, board, sweep.keep)
        board.say(f"sweep: {total} trials, {at_once} at once, in {folder}")
        try:
            _tuner(sweep, space, job, points, at_once, folder, resume).fit()
            left = total - sum(trial.state in ENDED for trial in record.trials.values())
            if left:
                raise RunError(f"{folder}: {left} of {total} trials are not done; --resume goes on with them")
            seen.forget()
            record.write()
            if parent is not None:
                _end_children(parent, record)
        except BaseException as error:
            if parent is not None:
                parent.finish({}, {}, "KILLED" if isinstance(error, RunError | KeyboardInterrupt) else "FAILED")
            raise
    return record


def _end_children(parent: ParentRun, record: Record) -> None:
    """Of trials that came to no end of their own; their processes, which may have said something else, are gone now."""
    for trial in record.trials.values():
        if trial.run and trial.state != "finished":
            parent.end_child(trial.folder, trial.state, "KILLED" if trial.state == "stopped" else "FAILED")


def _params(sweep: SweepConfig) -> Mapping[str, str]:
    """Of the parent run in MLflow."""
    dimensions = {key: dump_yaml(dimension).strip() for key, dimension in sweep.search.items()}
    return {"sampler": sweep.sampler, **{f"search/{key}": text for key, text in dimensions.items()}}


def _fitting(config: Config) -> int:
    """Trials that the cluster has room for, a GPU or a CPU for each of their workers."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if config.cluster.use_gpu is not False else 0
    return max(1, (gpus or int(resources.get("CPU", 1))) // (config.cluster.num_workers or 1))


# ---------------------------------------------------------------------------------------------- Ray Tune


def _tuner(
    sweep: SweepConfig, space: Space, job: SweepJob, points: list[Coded], at_once: int, folder: str, resume: bool
) -> tune.Tuner:
    os.environ.update(_SETTINGS)
    # A trial stands where the driver stands, whose files it reads, and takes no core: its workers have their own.
    own = ray.get_runtime_context().get_node_id()
    here = next(f"node:{node['NodeManagerAddress']}" for node in ray.nodes() if node["NodeID"] == own)
    trainable = tune.with_resources(tune.with_parameters(SweepTrial, job=job), tune.PlacementGroupFactory([{here: 0.001}]))
    local = folder if is_remote(folder) else filesystem_of(folder)[1]
    state = storage.join(local, _TUNE)
    if resume and tune.Tuner.can_restore(state):
        return tune.Tuner.restore(state, trainable, resume_unfinished=True, resume_errored=True)
    return tune.Tuner(
        trainable,
        param_space=_listed(points, sweep.seeds) if points else {"seed": sweep.seeds[0]},  # a searcher brings the points itself
        tune_config=tune.TuneConfig(
            metric=WER,
            mode="min",
            num_samples=sweep.trials if sweep.sampler == "tpe" else 1,
            max_concurrent_trials=at_once,
            scheduler=_scheduler(sweep),
            search_alg=_searcher(sweep, space),
            trial_name_creator=Names(folder),
            trial_dirname_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name=_TUNE,
            storage_path=local,
            verbose=0,
            callbacks=[Watch(folder)],
            failure_config=tune.FailureConfig(max_failures=sweep.retries),
            # A donor's older one may be what another trial is about to go on from: `Watch.on_checkpoint` knows.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=None),
        ),
    )


def _listed(points: list[Coded], seeds: tuple[int, ...]) -> dict[str, Any]:
    """All points, each with all seeds before the next: weights are kept until the seeds of a point have ended."""
    if len(seeds) == 1:
        return {"coded": tune.grid_search(points), "seed": seeds[0]}
    return {PAIR: tune.grid_search([{"coded": coded, "seed": seed} for coded in points for seed in seeds])}


def _dirname(trial: Any) -> str:
    return str(trial)


def _searcher(sweep: SweepConfig, space: Space) -> Searcher | None:
    if sweep.sampler != "tpe":
        return None
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(space=space.suggested, metric=WER, mode="min", seed=sweep.sampler_seed)


def _scheduler(sweep: SweepConfig) -> TrialScheduler | None:
    if sweep.asha is not None:
        return ASHAScheduler(
            time_attr=AT,
            max_t=END,  # type: ignore[arg-type]  # percent
            grace_period=100 * sweep.asha.grace,  # type: ignore[arg-type]
            reduction_factor=sweep.asha.reduction,
            stop_last_trials=False,
        )
    if sweep.sampler != "pbt":
        return None
    random.seed(sweep.sampler_seed)  # Ray draws from the process's own generator
    return PopulationBasedTraining(
        time_attr=AT,
        perturbation_interval=100 * sweep.pbt.interval,
        quantile_fraction=sweep.pbt.quantile,
        resample_probability=sweep.pbt.resample,
        hyperparam_mutations={"coded": {key: _mutation(dimension) for key, dimension in sweep.search.items()}},
        custom_explore_fn=Within(dict(sweep.search)),
    )


def _mutation(dimension: Dimension) -> Any:
    if dimension.choice is not None:
        return list(range(len(dimension.choice)))
    if dimension.int is not None:
        return tune.randint(dimension.int[0], dimension.int[1] + 1)
    if dimension.loguniform is not None:
        return tune.loguniform(*dimension.loguniform)
    assert dimension.uniform is not None
    return tune.uniform(*dimension.uniform)


class Within:
    """Keeps values that were changed while training within their ranges."""

    def __init__(self, search: dict[str, Dimension]) -> None:
        self._search = search

    def __call__(self, tuned: dict[str, Any]) -> dict[str, Any]:
        """The point, cut to its ranges."""
        coded = dict(tuned["coded"])
        for key, value in coded.items():
            bounds = self._search[key].int or self._search[key].uniform or self._search[key].loguniform
            if bounds is not None:
                coded[key] = short(min(max(value, bounds[0]), bounds[1]))
        return {**tuned, "coded": coded}
