"""A trial of a sweep, inside Ray Tune: an ordinary distillation run whose dev scores are reported to the scheduler."""

import json
import math
import os
import queue
import shutil
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from rich.console import Console

from raykd import storage
from raykd.config import Config
from raykd.config.tune import SweepConfig
from raykd.data.sources.recognise import with_kinds
from raykd.distillation import distil
from raykd.errors import RunError, UserError
from raykd.runs import changed_keys, with_absolute_paths
from raykd.teachers import ensure_models
from raykd.tracking.history import HistoryWriter, read_history
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import REPLACED, RunFolder
from raykd.training.checkpoint import path_of
from raykd.tuning.record import best_wer
from raykd.tuning.space import Space

WER, AT, STEP, FAILED, DONE = "wer", "percent", "step", "failed", "done"
"""What a trial reports: its word error rate on dev, the percent and step of its training at which that was measured, why it
came to no end, and that it has ended (Ray Tune's own word)."""
PAIR = "pair"
"""Key of coded point and seed where Ray Tune lists both together."""
STOPPED_WITHIN_S = 90.0
"""Longest wait for the workers of a trial that is ended."""
END = 99.9
"""The last percent, which only the report that ends a trial has: schedulers decide at 25, 50, 75 and the like."""
_DONOR, _WEIGHTS, _HISTORY = "donor.json", "checkpoint", "history.jsonl"


class Folder:
    """A temporary folder that lives until `cleanup`, or is removed by others when the process is killed."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self.name = self._held.enter_context(storage.temporary_dir())

    def cleanup(self) -> None:
        """Remove it."""
        self._held.close()


Reports = queue.SimpleQueue[tuple[dict[str, Any], Folder | None] | None]
"""What is reported, and the folder of what others may go on from."""


@dataclass(frozen=True)
class SweepJob:
    """What all trials of a sweep share. Picklable."""

    sweep: SweepConfig
    path: str
    """Of the sweep's file, absolute."""
    folder: str
    """Where the driver was started: relative paths of configs are meant from there."""
    share: float
    """Of the cluster, for each trial."""
    parent_run: str | None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the driver's that say where runs are tracked."""


def tuned_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The coded point and the seed in Ray Tune's config of a trial."""
    return dict(config.get(PAIR, config))


class SweepTrial(tune.Trainable):
    """Run by Ray Tune as an actor on the driver's node.

    The run itself goes on in a thread of its own, so that it does not wait while the scheduler thinks. When the scheduler ends
    the trial, `cleanup` waits until its workers have stopped: Ray would keep what they hold for as long as the sweep goes on.
    """

    def setup(self, config: dict[str, Any], job: SweepJob) -> None:  # type: ignore[override]
        """`config`: see `tuned_of`."""
        for name, value in job.environment.items():
            os.environ.setdefault(name, value)
        os.chdir(job.folder)
        self._job, self._tuned = job, tuned_of(config)
        self._reports: Reports = queue.SimpleQueue()
        self._errors: list[BaseException] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._donor: Folder | None = None
        self._shared: Folder | None = None

    def step(self) -> dict[str, Any]:
        """The next dev score."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="raykd-trial", daemon=True)
            self._thread.start()
        found = self._reports.get()
        if found is None:
            raise self._errors[0]
        report, folder = found
        if self._shared:
            self._shared.cleanup()
        self._shared = folder
        return report

    def cleanup(self) -> None:
        """End the run."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOPPED_WITHIN_S)
        left = [self._shared, self._donor]
        while not self._reports.empty():
            found = self._reports.get()
            left += found[1:] if found else ()
        for folder in filter(None, left):
            folder.cleanup()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Population based training: what others may go on from."""
        if self._shared:
            shutil.copytree(self._shared.name, checkpoint_dir, dirs_exist_ok=True)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Population based training: what this one goes on from."""
        if storage.exists(f"{checkpoint}/{_DONOR}"):
            self._donor = Folder()
            shutil.copytree(checkpoint, self._donor.name, dirs_exist_ok=True)

    def _run(self) -> None:
        try:
            donor = self._donor.name if self._donor else None
            _work(self._job, self.trial_name, self._tuned, donor, self._reports, self._stop)
        except BaseException as error:
            self._errors.append(error)
            self._reports.put(None)


def _work(
    job: SweepJob,
    name: str,
    tuned: Mapping[str, Any],
    donor: str | None,
    reports: Reports,
    stop: threading.Event,
) -> None:
    try:
        config = _config(job, name, tuned)
        if donor is not None:
            _take_over(config, donor)
        found = RunFolder.find(config.output_dir, config.name)
        with TrialProgress(_log_file(job, name), stop) as progress:
            # Of a teacher that is trained here nothing is reported.
            ensure_models(config, lambda teacher, resume: distil(teacher, resume, progress), progress)
            progress.reports = reports
            progress.shared = config if job.sweep.sampler == "pbt" else None
            run = distil(config, found is not None, progress)
    except (UserError, RunError) as error:  # trying again would end the same way
        reports.put(({WER: math.inf, AT: END, FAILED: str(error).splitlines()[0], DONE: True}, None))
        return
    best = best_wer(read_history(run.history_path))
    reports.put(({WER: math.inf if best is None else best, AT: END, DONE: True}, None))


def _config(job: SweepJob, name: str, tuned: Mapping[str, Any]) -> Config:
    space = Space(job.sweep, job.path)
    config = space.config(space.decoded(tuned.get("coded", {})), name, tuned["seed"])
    # What the machine does says nothing of one of several trials on it.
    changes = {"parent_run": job.parent_run, "log_model": False, "system_metrics": False}
    tracking = config.tracking.model_copy(update=changes)
    cluster = config.cluster.model_copy(update={"share": job.share})
    return with_absolute_paths(with_kinds(config.model_copy(update={"tracking": tracking, "cluster": cluster})))


class _Stopped(SystemExit):
    """The scheduler ended the trial."""


class TrialProgress(Progress):
    """Writes to a file what a run says, and puts its dev scores into `reports`. The run ends where it next says something after
    `stop` was set."""

    def __init__(self, log: str | None, stop: threading.Event) -> None:
        self._log = open(log, "a", encoding="utf-8") if log else None  # noqa: SIM115 (closed with the progress)
        super().__init__(quiet=log is None, console=Console(file=self._log, width=160) if self._log else None)
        self._steps, self._stop = 0.0, stop
        self.reports: Reports | None = None
        self.shared: Config | None = None
        """Of a run that others may go on from."""

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._log:
            self._log.close()

    def say(self, text: str) -> None:
        """See `Progress.say`; at once, for who looks into the file."""
        super().say(text)
        if self._log:
            self._log.flush()

    def phase(self, name: str, total: float | None = None, unit: str = "", done: float = 0) -> None:
        """See `Progress.phase`."""
        super().phase(name, total, unit, done)
        if name == "training":
            self._steps = total or 0.0

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        """See `Progress.update`.

        Raises:
            _Stopped: the scheduler has ended the trial.
        """
        super().update(done, total, note)
        if self._stop.is_set():
            raise _Stopped

    def record(self, record: Mapping[str, Any]) -> None:
        """See `Progress.record`."""
        super().record(record)
        is_score = record["kind"] == "eval" and record["split"] == "dev"
        # The last score ends the trial: a scheduler that got it before might stop or replace what has been trained to its end.
        if self.reports is not None and is_score and record["step"] < self._steps:
            at = min(END, 100.0 * record["step"] / self._steps)
            # Now: while its score is being told a checkpoint is not pruned.
            folder = _shared(self.shared, record["step"]) if self.shared is not None else None
            self.reports.put(({WER: record["wer"], AT: at, STEP: record["step"]}, folder))


def _log_file(job: SweepJob, name: str) -> str | None:
    """Next to the run folders, which are not there yet; None in a bucket."""
    folder = storage.join(storage.absolute(job.sweep.output_dir), job.sweep.name, "logs")
    if storage.is_remote(folder):
        return None
    storage.make_dir(folder)
    return f"{storage.filesystem_of(folder)[1]}/{name}.log"


# ---------------------------------------------------------------------------------------------- population based training


def _shared(config: Config, step: int) -> Folder | None:
    """A folder with the training so far: the checkpoint of that step, the history, and where they come from."""
    run = RunFolder.find(config.output_dir, config.name)
    path = path_of(run.checkpoints_dir, step) if run is not None else None
    if run is None or path is None or not storage.exists(path):
        return None
    folder = Folder()
    for name in storage.list_dir(path):
        storage.write_bytes(f"{folder.name}/{_WEIGHTS}/{name}", storage.read_bytes(storage.join(path, name)))
    storage.write_bytes(f"{folder.name}/{_HISTORY}", storage.read_bytes(run.history_path))
    storage.write_text(f"{folder.name}/{_DONOR}", json.dumps({"run": run.path, "step": step}))
    return folder


def _take_over(config: Config, given: str) -> None:
    """Put another trial's training so far into a new run folder of this one, which goes on from there with its own values.
    `given`: a folder as `_shared` makes it."""
    donor = json.loads(storage.read_bytes(f"{given}/{_DONOR}"))
    found = RunFolder.find(config.output_dir, config.name)
    again = found is not None and (found.path == donor["run"] or found.read_json(_DONOR) == donor)
    if found is not None and again and not changed_keys(config, found):
        return  # its process was lost and is here again
    run = RunFolder.create(config)
    for name in storage.list_dir(f"{given}/{_WEIGHTS}"):
        copy = storage.join(path_of(run.checkpoints_dir, donor["step"]), name)
        storage.write_bytes(copy, storage.read_bytes(f"{given}/{_WEIGHTS}/{name}"))
    storage.write_bytes(run.history_path, storage.read_bytes(f"{given}/{_HISTORY}"))
    HistoryWriter(run.history_path).rewind(donor["step"])
    run.write_text(_DONOR, json.dumps(donor))
    if found is not None:
        found.write_text(REPLACED, run.path)
        found.delete_weights()
