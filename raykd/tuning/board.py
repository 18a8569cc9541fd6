"""The live table of a sweep's trials; without a terminal, a line for each trial that ends and one every half a minute."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raykd.tracking.history import History
from raykd.tracking.progress import duration
from raykd.tracking.table import format_number, format_rate
from raykd.tuning.record import ENDED, Record, Trial, best_wer, value_text

EVERY_S = 30.0
_SHOWN = 24
"""Rows of the live table: those that run, then the best."""


class Board:
    """Use as a context manager."""

    def __init__(self, total: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`total`: trials that there will be."""
        self._total, self._console, self._clock = total, console or Console(), clock
        self._live: Live | None = None
        self._began = self._said = clock()
        self._ended_before: int | None = None

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def ended(self, trial: Trial) -> None:
        """Tell the end of a trial."""
        history = trial.history()
        rate = format_rate(best_wer(history))
        step = f" at step {history.eval[-1]['step']}" if trial.state == "stopped" and history.eval else ""
        score = "" if rate == "-" else f", dev WER {rate}"
        why = f": {trial.reason}" if trial.state == "failed" else ""
        values = ", ".join(f"{key} {value_text(value)}" for key, value in trial.point.items())
        self.say(f"{trial.name} {trial.state}{step}{score} in {duration(trial.seconds)} ({values}){why}")

    def show(self, record: Record) -> None:
        """Where all trials are."""
        if self._ended_before is None:
            self._ended_before = self._ended(record)
        if self._live:
            self._live.update(trial_table(record, self._state(record)), refresh=True)
        elif self._clock() - self._said >= EVERY_S:
            self._said = self._clock()
            self.say(self._state(record))

    def _ended(self, record: Record) -> int:
        return sum(trial.state in ENDED for trial in record.trials.values())

    def _state(self, record: Record) -> str:
        """Counts, the best so far, and the time left."""
        trials = list(record.trials.values())
        counts = {state: sum(trial.state == state for trial in trials) for state in ("running", *sorted(ENDED))}
        to_come = self._total - sum(counts.values())
        parts = [f"{count} {state}" for state, count in counts.items() if count] + ([f"{to_come} to come"] if to_come else [])
        scored = [(wer, trial.name) for trial in trials if (wer := best_wer(trial.history())) is not None]
        if scored:
            wer, name = min(scored)
            parts.append(f"best dev WER {format_rate(wer)} ({name})")
        done = self._ended(record) - (self._ended_before or 0)
        elapsed = self._clock() - self._began
        if done and done < self._total:
            left = (self._total - self._ended(record)) * elapsed / done
            parts.append(f"{duration(left)} left")
        return f"trials: {', '.join(parts)}, {duration(elapsed)} elapsed"


def trial_table(record: Record, title: str) -> Table:
    """One row a trial, those that run first, then the others by their dev WER."""
    keys = list(dict.fromkeys(key for trial in record.trials.values() for key in trial.point))
    seeds = len({trial.seed for trial in record.trials.values()}) > 1
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    settings = [_ending(key, keys) for key in keys] + (["seed"] if seeds else [])
    for heading in ("trial", *settings, "state", "step", "dev WER", "left"):
        name, setting = heading in {"trial", "state"}, heading in settings
        table.add_column(_cut(heading), justify="left" if name else "right", no_wrap=not setting)
    histories = {trial.name: trial.history() for trial in record.trials.values()}

    def place(trial: Trial) -> tuple[Any, ...]:
        wer = best_wer(histories[trial.name])
        return trial.state != "running", wer is None, wer, trial.name

    for trial in sorted(record.trials.values(), key=place)[:_SHOWN]:
        history = histories[trial.name]
        values = [value_text(trial.point[key]) if key in trial.point else "" for key in keys]
        seed = [str(trial.seed)] if seeds else []
        table.add_row(trial.name, *map(_cut, values), *seed, trial.state, *_progress(trial, history))
    return table


def _cut(text: str) -> Text:
    """One line that ends in an ellipsis where the terminal is too narrow."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _ending(key: str, keys: Sequence[str]) -> str:
    """As many of a config key's last words as tell it from the others: a table has little room."""
    words = key.split(".")
    endings = [".".join(words[first:]) for first in range(len(words) - 1, 0, -1)]
    return next((one for one in endings if not any(other != key and f".{other}".endswith(f".{one}") for other in keys)), key)


def _progress(trial: Trial, history: History) -> tuple[str, str, str]:
    """Step, dev WER, time left."""
    rate = format_rate(best_wer(history))
    if not history.train:
        return "", rate, ""
    last = history.train[-1]
    step = f"{format_number(last['step'])}/{format_number(last['steps'])}"
    if trial.state != "running":
        return step, rate, ""
    recent = [record["seconds"] for record in history.train[-20:] if "seconds" in record]
    left = sum(recent) / len(recent) * (last["steps"] - last["step"]) if recent else None
    return step, rate, "" if left is None else duration(left)
