"""`sweep.json`: what became of each trial of a sweep. All else is in the trials' run folders."""

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raykd import storage
from raykd.config.mistakes import got
from raykd.tracking.history import History, read_history
from raykd.tracking.run_folder import RunFolder

FILE = "sweep.json"
State = Literal["waiting", "running", "finished", "stopped", "failed"]
ENDED = {"finished", "stopped", "failed"}


def value_text(value: Any) -> str:
    """A value of a point as tables have it."""
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else got(value)


@dataclass
class Trial:
    """One point with one seed."""

    name: str
    point: dict[str, Any]
    """By config key."""
    seed: int
    state: State = "waiting"
    reason: str = ""
    """Why it failed or was stopped."""
    run: str = ""
    """Its run folder, once it has one."""
    began: float | None = None
    """Seconds since 1970."""
    seconds: float = 0.0
    """That it ran, without pauses of the whole sweep."""

    @property
    def folder(self) -> RunFolder:
        """Its run folder."""
        return RunFolder(self.run)

    def history(self) -> History:
        """Its training so far."""
        return read_history(self.folder.history_path) if self.run else History([], [], [])

    def ends(self, state: State, reason: str = "") -> None:
        """It has come to an end."""
        self.state, self.reason = state, reason
        if self.began is not None:
            self.seconds += time.time() - self.began
            self.began = None

    def begins(self) -> None:
        """It runs, perhaps again."""
        self.state, self.reason, self.began = "running", "", self.began or time.time()


@dataclass
class Record:
    """The trials of a sweep, in the order in which they were made."""

    folder: str
    trials: dict[str, Trial] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str) -> "Record":
        """What is in the folder; nothing where there is none. Trials that ran when it was written are waiting now, with the
        time that their steps took: nobody was there to note when they stopped."""
        path = storage.join(folder, FILE)
        record = cls(folder)
        if storage.exists(path):
            for fields in json.loads(storage.read_bytes(path))["trials"]:
                trial = Trial(**{**fields, "run": _under(folder, fields["run"])})
                if trial.state == "running":
                    trial.state, trial.began = "waiting", None
                    trial.seconds = max(trial.seconds, sum(step.get("seconds", 0.0) for step in trial.history().train))
                record.trials[trial.name] = trial
        return record

    def write(self) -> None:
        """Store it, whole or not at all."""
        trials = [{**asdict(trial), "run": trial.run.removeprefix(self.folder).lstrip("/")} for trial in self.trials.values()]
        storage.write_text(storage.join(self.folder, FILE), json.dumps({"trials": trials}, indent=1, ensure_ascii=False))


def _under(folder: str, run: str) -> str:
    """Run folders are noted relative to the sweep's, which may have been moved."""
    return storage.join(folder, run) if run else ""


def best_wer(history: History) -> float | None:
    """The lowest word error rate on dev so far, a fraction of 1."""
    return min((record["wer"] for record in history.eval if record["split"] == "dev"), default=None)
