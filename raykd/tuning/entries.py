"""Runs side by side, of a sweep or any others: what is different between them, and how they did."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from raykd.config import load_written_config
from raykd.tracking.history import History, read_history
from raykd.tracking.mlflow_values import flat_params
from raykd.tracking.run_folder import RunFolder
from raykd.tuning.record import Record, best_wer

_APART = {"name", "output_dir", "tracking", "cluster", "seed"}
"""Keys in which runs differ that are alike."""


@dataclass(frozen=True)
class Entry:
    """One run."""

    name: str
    point: Mapping[str, Any]
    """What is different from the others, by config key."""
    seed: int
    state: str
    reason: str
    history: History
    metrics: Mapping[str, Any] | None
    """Of `metrics.json`."""
    seconds: float
    run: str
    """Its folder; empty where it has none."""

    @property
    def dev(self) -> float | None:
        """The lowest word error rate on dev."""
        return best_wer(self.history)

    @property
    def test(self) -> float | None:
        """The student's word error rate on its first test split."""
        return None if self.metrics is None else self.metrics["student"]["wer"]

    @property
    def speedup(self) -> float | None:
        """Over its teacher, at the first batch size measured."""
        speeds = list(self.metrics["speed"].values()) if self.metrics is not None else []
        return speeds[0].get("speedup") if speeds else None

    @property
    def steps(self) -> int:
        """Steps trained."""
        return self.history.train[-1]["step"] if self.history.train else 0

    def rate_at(self, step: int) -> float | None:
        """The lowest word error rate on dev up to a step; None where it was not scored at that step."""
        dev = [record for record in self.history.eval if record["split"] == "dev" and record["step"] <= step]
        return min(record["wer"] for record in dev) if dev and dev[-1]["step"] == step else None


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone."""

    entries: tuple[Entry, ...]

    @property
    def point(self) -> Mapping[str, Any]:
        """What is different from other groups."""
        return self.entries[0].point

    @property
    def best(self) -> Entry:
        """The run to take: the best that came to its end, where one did."""
        return min(self.entries, key=lambda entry: (entry.state != "finished", entry.dev is None, entry.dev))

    @property
    def finished(self) -> int:
        """How many of its runs came to their end."""
        return sum(entry.state == "finished" for entry in self.entries)

    @property
    def dev(self) -> float | None:
        """Mean over seeds. One that was stopped early counts with its rate by then, which could only have fallen."""
        rates = [entry.dev for entry in self.entries if entry.dev is not None]
        return fmean(rates) if rates else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None of one."""
        rates = [entry.dev for entry in self.entries if entry.dev is not None]
        return stdev(rates) if len(rates) > 1 else None


def ranked(entries: Sequence[Entry]) -> list[Group]:
    """Groups, the lowest word error rate on dev first; after them those with a run that failed or is not done, whose mean lacks
    something, and last those of which no run came to its end."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(json.dumps(entry.point, sort_keys=True, default=str), []).append(entry)

    def place(group: Group) -> tuple[Any, ...]:
        lacks = any(entry.state not in {"finished", "stopped"} for entry in group.entries)
        return not group.finished, lacks, group.dev is None, group.dev

    return sorted((Group(tuple(group)) for group in groups.values()), key=place)


def last_common_step(entries: Sequence[Entry]) -> int | None:
    """The last step at which every run that did not fail was scored."""
    steps = [
        {record["step"] for record in entry.history.eval if record["split"] == "dev"}
        for entry in entries
        if entry.state != "failed" and entry.history.eval
    ]
    return max(set.intersection(*steps), default=None) if steps else None


def entries_of_sweep(record: Record) -> list[Entry]:
    """Its trials."""
    found = []
    for trial in record.trials.values():
        metrics = trial.folder.read_json("metrics.json") if trial.run and trial.state == "finished" else None
        found.append(
            Entry(
                trial.name,
                trial.point,
                trial.seed,
                trial.state,
                trial.reason,
                trial.history(),
                metrics,
                trial.seconds,
                trial.run,
            )
        )
    return found


def entries_of_runs(folders: Sequence[str]) -> list[Entry]:
    """Any runs, with the keys in which their configs differ.

    Raises:
        UserError: a folder is no run's.
    """
    runs = [RunFolder.given(folder) for folder in folders]
    configs = {run.path: load_written_config(run.config_path) for run in runs}
    flat = {path: flat_params(config.model_dump(mode="json", exclude=_APART)) for path, config in configs.items()}
    keys = dict.fromkeys(key for params in flat.values() for key in params)
    different = [key for key in keys if len({params.get(key) for params in flat.values()}) > 1]
    found = []
    for run in runs:
        point = {key: _value(flat[run.path][key]) for key in different if key in flat[run.path]}
        metrics = run.read_json("metrics.json")
        history = read_history(run.history_path)
        seconds = metrics["train"]["wall_s"] if metrics else sum(record["seconds"] for record in history.train)
        state = "finished" if run.finished else "unfinished"
        found.append(Entry(run.name, point, configs[run.path].seed, state, "", history, metrics, seconds, run.path))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
