"""What the driver of a sweep sees: Ray Tune's events become the sweep's record, and the table on the terminal."""

import posixpath
import time
from typing import Any

from pyarrow.fs import FileSelector, FileType
from ray.tune import Callback

from raykd.tracking.run_folder import RunFolder
from raykd.tuning.board import Board
from raykd.tuning.entries import entries_of_sweep, ranked
from raykd.tuning.record import ENDED, Record, State, Trial
from raykd.tuning.space import Space
from raykd.tuning.trial import FAILED, tuned_of

_LOOK_S = 2.0
_COPY = "checkpoint_"
"""How Ray Tune's folders of a trial's copies begin."""
_SEEN: dict[str, "Seen"] = {}
"""By the sweep's folder: Ray Tune pickles its callbacks and restores them in another process."""


class Seen:
    """A sweep as it goes on in this process."""

    def __init__(self, space: Space, record: Record, board: Board, keep: int) -> None:
        self.space, self.record, self.board = space, record, board
        self._keep, self._looked = keep, 0.0
        self._left = [trial for trial in record.trials.values() if trial.state not in ENDED]
        _SEEN[record.folder] = self

    def name(self, tuned: dict[str, Any]) -> str:
        """Of a new trial. One that was made just before the driver was killed, which Ray Tune forgot, is made again."""
        point = self.space.decoded(tuned.get("coded", {}))
        for trial in self._left:
            if (trial.point, trial.seed) == (point, tuned["seed"]):
                self._left.remove(trial)
                return trial.name
        name = f"trial-{len(self.record.trials):03d}"
        self.record.trials[name] = Trial(name, point, tuned["seed"])
        self.record.write()
        return name

    def forget(self) -> None:
        """Trials that were never run: the searcher chose others in their place."""
        for trial in self._left:
            del self.record.trials[trial.name]
        self._left = []

    def begins(self, name: str, tuned: dict[str, Any]) -> None:
        """Its process was started, the first time or again, perhaps with other values."""
        trial = self.record.trials[name]
        self._left = [one for one in self._left if one is not trial]
        trial.point = self.space.decoded(tuned.get("coded", {}))
        trial.begins()
        self.record.write()

    def ends(self, name: str, state: State, reason: str = "") -> None:
        """It has come to an end."""
        trial = self.record.trials[name]
        if trial.state in ENDED:
            return
        self._find(trial)
        trial.ends(state, reason)
        self._make_room()
        self.record.write()
        self.board.ended(trial)

    def look(self) -> None:
        """Show where the trials are, every now and then."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        for trial in self.record.trials.values():
            if trial.state == "running":
                self._find(trial)
        self.board.show(self.record)
        self._looked = time.monotonic()

    def finished(self, name: str) -> bool:
        """Whether its run came to its end."""
        found = self._run_of(name)
        return found is not None and found.finished

    def _find(self, trial: Trial) -> None:
        found = self._run_of(trial.name)
        trial.run = found.path if found is not None else ""  # a failed one's may be deleted again

    def _run_of(self, name: str) -> RunFolder | None:
        return RunFolder.find(self.space.runs_folder, name)

    def _make_room(self) -> None:
        """Of points that are not among the best, what the report does not need goes, once all of their seeds have ended."""
        seeds = len(self.space.sweep.seeds)
        groups = ranked(entries_of_sweep(self.record))
        whole = [one.entries for one in groups if len(one.entries) >= seeds and all(run.state in ENDED for run in one.entries)]
        for entry in (entry for entries in whole[self._keep :] for entry in entries if entry.run):
            RunFolder(entry.run).delete_weights()


class Watch(Callback):
    """Ray Tune's events of a sweep."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @property
    def _seen(self) -> Seen:
        return _SEEN[self._folder]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        self._seen.begins(str(trial), tuned_of(trial.config))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It came to its end, or the scheduler stopped it."""
        last = trial.last_result or {}
        if FAILED in last:
            self._seen.ends(str(trial), "failed", last[FAILED])
        elif self._seen.finished(str(trial)):
            self._seen.ends(str(trial), "finished")
        else:
            self._seen.ends(str(trial), "stopped", "others did better at this point")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its process was lost too often, or it met a fault of ours."""
        error = trial.get_pickled_error()
        lines = str(error or "its process was lost").strip().splitlines()
        self._seen.ends(str(trial), "failed", lines[-1] if lines else type(error).__name__)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """Population based training saved a trial: its older copies go, but for those that a trial is to go on from."""
        wanted = {checkpoint.path, *(one.checkpoint.path for one in trials if one.checkpoint)}
        filesystem = checkpoint.filesystem
        for copy in filesystem.get_file_info(FileSelector(posixpath.dirname(checkpoint.path))):
            if copy.type == FileType.Directory and copy.base_name.startswith(_COPY) and copy.path not in wanted:
                filesystem.delete_dir(copy.path)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """See `ray.tune.Callback`."""
        self._seen.look()


class Names:
    """Names the trials `trial-000`, `trial-001`, ... and notes them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, trial: Any) -> str:
        """The next name."""
        return _SEEN[self._folder].name(tuned_of(trial.config))
