"""What every training run does, whatever it trains: its folder, its records, its best checkpoint, and how it ends."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from raykd import storage
from raykd.config import dump_yaml
from raykd.config.base import Mark, SectionT, mapped, marked, trained_by_raykd
from raykd.config.load import PARTS_COPIES, read_config_file
from raykd.config.root import MlmRunConfig, RunConfig
from raykd.data.sources.recognise import with_kinds
from raykd.errors import RunError, UserError
from raykd.lease import Owner, leased
from raykd.parts.outside import load_parts_file
from raykd.shown import tree_without_secrets
from raykd.tracking.history import HistoryWriter, read_history
from raykd.tracking.mlflow import MlflowTracker, send_waiting
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.training.checkpoint import latest_checkpoint, newest_good, read_state, step_of
from raykd.training.cluster import Resources
from raykd.training.loop import Record
from raykd.training.plan import TrainingPlan
from raykd.training.selection import CheckpointSelection
from raykd.training.shell import train_on_cluster
from raykd.training.worker import TrainingJob

_CANNOT_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}
_JOB_FOLDER = "runtime_resources/working_dir_files"
"""Part of the path of a Ray job's working folder."""
Evaluate = Callable[[str], Mapping[str, Any]]
"""Path of a checkpoint -> its scores on dev: numbers, and `per_language`."""
Banner = Callable[[Record], str]
ConfigT = TypeVar("ConfigT", bound=RunConfig)


@dataclass(frozen=True)
class Totals:
    """Of a run's training."""

    steps: int
    rows: int
    """Utterances, or segments of text."""
    tokens: int
    seconds: float
    target_passes: int | None = None
    """Utterances that teachers were run on; None: an older version did not count them."""
    memory_gb: float | None = None
    """Peak of the first worker: of tensors on a GPU, on a CPU of the whole process."""


class TrainingRun:
    """A run whose data and model are ready: training with evaluation beside it, and its records."""

    def __init__(self, config: RunConfig, run: RunFolder, progress: Progress) -> None:
        self.config, self.run, self.progress = config, run, progress
        self.history = HistoryWriter(run.history_path)
        self.tracker = MlflowTracker(config, run, say=progress.say) if config.tracking.mlflow else None
        self._started, self._last_step = False, 0

    def train(
        self, job: TrainingJob, resources: Resources, plan: TrainingPlan, evaluate: Evaluate, score: str, banner: Banner
    ) -> str:
        """Train to the end of the plan; the path of the checkpoint whose `score` on dev is the lowest.

        `banner`: what is said when the workers have started, from their record of what they compute on.

        Raises:
            UserError: there are checkpoints, and every one is damaged.
            RunError: training stopped.
        """
        start = newest_good(self.run.checkpoints_dir, self._note)
        first = step_of(start) if start else 0
        self.history.rewind(first)
        scored = read_history(self.run.history_path).eval
        selection = CheckpointSelection(
            self.run.checkpoints_dir,
            self.config.train.keep_checkpoints,
            evaluate=evaluate,
            on_score=self._on_dev_score,
            known_scores={record["step"]: record[score] for record in scored if record["split"] == "dev"},
            score=score,
            first=round(job.method.settled * plan.steps),
        )
        self.progress.phase("training", total=plan.steps, unit="steps", done=first)

        said: list[str] = []

        def on_record(record: Record) -> None:
            if record["kind"] == "checkpoint":
                self.history.flush()
                selection.written(record["step"], record["evaluate"])
                return
            if record["kind"] == "started":
                selection.catch_up(plan.evaluation_due)
            if record["kind"] == "started" and not said:
                said.append(banner(record))
                self.progress.say(said[0])
            self._on_record(record)

        try:
            train_on_cluster(job, resources, self.run.at("ray_train"), on_record)
            best = selection.best()
        except BaseException as error:
            selection.close(wait=isinstance(error, Exception))
            raise
        self.progress.done()
        self.history.flush()
        if self.tracker:
            self.tracker.results_follow()
        return best

    @contextmanager
    def ended_well(self) -> Iterator[None]:
        """What happens inside is the run: whatever ends it, its records are kept and its MLflow run is closed."""
        try:
            yield
        except BaseException as error:
            self.history.flush()
            if self.tracker:
                self.tracker.close("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
            raise
        if self.tracker:
            self.tracker.close()

    @property
    def totals(self) -> Totals:
        """Over all steps: what the newest checkpoint says, which is the last step's when training is over.

        The history may lack steps: a crash tears a line, and workers that outlive a killed driver write later checkpoints.
        """
        newest = latest_checkpoint(self.run.checkpoints_dir)
        state = read_state(newest) if newest else None
        if state is None or not state.totals:  # a checkpoint of an older version
            steps = read_history(self.run.history_path).train
            sums = {key: sum(record.get(key, 0) for record in steps) for key in ("utterances", "segments", "tokens", "seconds")}
            return Totals(len(steps), sums["utterances"] or sums["segments"], sums["tokens"], sums["seconds"])
        rows = state.totals.get("utterances", state.totals.get("segments", 0))
        passes = state.totals.get("target_passes")
        return Totals(
            steps=state.step,
            rows=int(rows),
            tokens=int(state.totals["tokens"]),
            seconds=state.totals["seconds"],
            target_passes=None if passes is None else int(passes),
            memory_gb=state.totals.get("memory_gb"),
        )

    def _note(self, text: str) -> None:
        """An event that is both said and recorded."""
        self.history.record({"kind": "event", "step": self._last_step, "text": text})
        self.progress.say(text)

    def _on_record(self, record: Record) -> None:
        if record["kind"] == "started":
            self._on_start(record["step"])
            return
        if record["kind"] == "stopped":
            record = {"kind": "event", "step": self._last_step, "text": record["reason"]}
        elif record["kind"] == "event":
            self.progress.say(record["text"])
        self._last_step = max(self._last_step, record["step"])
        self.history.record(record)
        self.progress.record(record)
        logged = record["kind"] != "train" or record["step"] % self.config.tracking.log_every == 0 or record["step"] == 1
        if self.tracker and logged:
            self.tracker.record(record)

    def _on_start(self, step: int) -> None:
        """The workers start; again, when one was lost. Their checkpoint stands for itself: workers that outlive a killed driver
        write later ones than it knew of. Steps before it that the history lacks are noted there."""
        again, before = self._started, self._last_step
        self._started, self._last_step = True, step
        if again:
            self.history.rewind(step)
            lost = f"after step {before}" if before else "before the first step"
            going_on = f"goes on from the checkpoint of step {step}" if step else "starts again"
            self._note(f"a training worker was lost {lost}; training {going_on}")
        self.history.flush()
        recorded = {record["step"] for record in read_history(self.run.history_path).train}
        missing = sorted(set(range(1, step + 1)) - recorded)
        if missing:
            lacks = f"{len(missing)} of the first {step} steps, such as {missing[0]}"
            self._note(f"the history lacks {lacks}; training goes on from the checkpoint of step {step}")

    def _on_dev_score(self, step: int, scores: Mapping[str, Any]) -> None:
        self._on_record({"kind": "eval", "step": step, "split": "dev", **scores})


@contextmanager
def opened_run(
    config: ConfigT, resume: bool, nodes: int, progress: Progress, *, kept: bool = True
) -> Iterator[tuple[ConfigT, RunFolder]]:
    """A new run folder, or with `resume` the newest unfinished one of its name, and the config with absolute paths and
    the kinds of all sources.

    A new folder goes away again when a mistake of the user's ends the run before anything was recorded in it, and always where
    it is not to be `kept`.

    Raises:
        UserError: a source is not there, the folder cannot be written or not be seen by all nodes, or the run to resume is not
            there, has other settings, or is in use.
        RunError: what happens inside could not read or write a file.
    """
    _require_shared_storage(config, nodes)
    if _JOB_FOLDER in os.getcwd() and storage.absolute(config.output_dir) != config.output_dir:
        progress.say(
            f"WARNING  output_dir: {config.output_dir} lies in the job's own folder ({os.getcwd()}), "
            "which Ray deletes in time; give an absolute path or s3://"
        )
    config = with_absolute_paths(with_kinds(config))
    run = _resumable(config) if resume else RunFolder.create(config)
    spoilt = not kept
    try:
        with leased(run.path, _in_use(run)):
            if resume:
                _note_changes(config, run, progress)
                if not run.finished:
                    run.write_text("config.yaml", dump_yaml(config))
            keep_parts(config, run)
            if run.finished:
                progress.say(f"{run.path} is finished; there is nothing to resume")
                if config.tracking.mlflow:
                    send_waiting(config, run, progress.say)
            try:
                yield config, run
            except UserError:
                spoilt |= not resume and not run.has("history.jsonl")
                raise
            except OSError as error:
                full = error.errno in _CANNOT_BE_WRITTEN
                reason = f"cannot be written ({error.strerror or error})" if full else f"stopped by {error}"
                raise RunError(f"{run.path}: {reason}; what is there is kept; mend it and go on with --resume") from error
    finally:
        if spoilt:  # now that no heartbeat makes the folder anew
            storage.delete_dir(run.path)


def keep_parts(config: RunConfig, run: RunFolder) -> None:
    """Copy the files of the user's own parts into the run folder, where they are found when the originals are gone.

    A copy stays as it is: a resume with another text is refused, and must not change what the run was made with.
    """
    for _, path, marks in marked(config):
        if Mark.PARTS_FILES in marks:
            copy = storage.join(PARTS_COPIES, os.path.basename(path))
            if not run.has(copy):
                run.write_text(copy, load_parts_file(path).text)


def _in_use(run: RunFolder) -> Callable[[Owner], None]:
    def refuse(owner: Owner) -> None:
        raise UserError(f"{run.path}: the run is in use by {owner}; wait for its end or stop it, and then use --resume")

    return refuse


def ids_folder(config: RunConfig, run: RunFolder) -> str | None:
    """Where workers write the ids they train on, when they are asked to."""
    return run.at("trained_ids") if config.train.record_ids else None


def with_absolute_paths(config: SectionT) -> SectionT:
    """Workers run in other folders, so that a relative path would lead elsewhere."""

    def absolute(key: str, value: Any, marks: tuple[Mark, ...]) -> Any:
        if Mark.PATH in marks or Mark.PARTS_FILES in marks:
            return storage.absolute(value)
        if Mark.PATH_IF_THERE in marks or any(mark.is_model for mark in marks):
            # Hub ids and the like stay as they are.
            return storage.absolute(value) if storage.exists(storage.absolute(value)) else value
        return value

    return mapped(config, absolute)


def _resumable(config: RunConfig) -> RunFolder:
    """The run to go on with, when nothing differs that must not.

    Raises:
        UserError: there is none, or a key that must stay has another value.
    """
    run = RunFolder.latest(config.output_dir, config.name)
    for key, _, _ in _differences(_fixed(_config_of(run, type(config))), _fixed(config)):
        if not run.finished:
            raise UserError(
                f"{key}: differs from the run to resume ({run.config_path}); "
                "give the same value, or start a new run without --resume"
            )
    return run


def changed_keys(config: RunConfig, run: RunFolder) -> list[str]:
    """Keys that must stay as they are within a run and have another value in this one's config."""
    wanted = with_absolute_paths(with_kinds(config))
    return [key for key, _, _ in _differences(_fixed(_config_of(run, type(config))), _fixed(wanted))]


def _config_of(run: RunFolder, kind: type[RunConfig]) -> RunConfig:
    return read_config_file(kind, run.config_path)


_FILLED_IN = "evaluation.vocabulary"
"""What a run's config.yaml names though the user's config does not: the words of its masked language model's text."""


def _note_changes(config: RunConfig, run: RunFolder, progress: Progress) -> None:
    """Say and record which keys are others than before: `eval_every`, for one, decides which checkpoint can win."""
    before = _config_of(run, type(config)).model_dump(mode="json")
    changes = [
        f"{key} {new} instead of {old}"
        for key, old, new in _differences(before, tree_without_secrets(config.model_dump(mode="json")))
        if not (key == _FILLED_IN and new is None)
    ]
    if changes and not run.finished:
        steps = read_history(run.history_path).train
        text = f"resumed with {', '.join(changes)}"
        HistoryWriter(run.history_path).record({"kind": "event", "step": steps[-1]["step"] if steps else 0, "text": text})
        progress.say(text)


def _fixed(config: RunConfig) -> dict[str, Any]:
    """What must not change: all that is not marked as free. Of models that raykd trains the config's name is enough: the folder
    of a Ray job moves, and the models themselves are compared by hash."""

    def kept(key: str, value: Any, marks: tuple[Mark, ...]) -> Any:
        if Mark.FREE in marks:
            return None
        is_config = any(mark.is_model for mark in marks) and trained_by_raykd(value)
        return os.path.basename(value) if is_config else value

    fixed: dict[str, Any] = tree_without_secrets(mapped(config, kept).model_dump(mode="json", warnings=False))
    return fixed


def _differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, value before, value after) wherever two configs differ."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        if before != after:
            yield path, before, after
        return
    for key in dict.fromkeys([*before, *after]):
        yield from _differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)


def _require_shared_storage(config: RunConfig, nodes: int) -> None:
    """With several nodes, what one writes the others must be able to read.

    Raises:
        UserError: a plain local path.
    """
    if nodes == 1:
        return
    section = "text" if isinstance(config, MlmRunConfig) else "data"
    for key, path in (("output_dir", config.output_dir), (f"{section}.cache_dir", getattr(config, section).cache_dir)):
        if "://" not in path:
            name = os.path.basename(path.rstrip("/"))
            raise UserError(
                f"{key}: {path} is a local path, but the cluster has {nodes} nodes that must all read it; "
                f"give a shared one such as s3://bucket/{name}, or file:///mnt/shared/{name} for a folder mounted on every node"
            )
