"""What the user sees while a run works: a live line on a terminal, a line every few seconds anywhere else."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Column, Table

from raykd.evaluation.measures import HEADINGS
from raykd.shown import shown
from raykd.tracking.table import format_measure, format_number

_WIDE = 110
"""Columns of a terminal from which on there is room for a bar."""


class Progress:
    """Phases of a run (`speech`, `preparing`, `teacher`, `training`, `evaluating`), one at a time, each with done of total.

    Use as a context manager. Everything it prints goes to `console` (default: standard output).
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        console: Console | None = None,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`every_s`: pause between lines where there is no terminal. `quiet`: say nothing at all."""
        self._console = console or Console()
        self._quiet, self._every_s, self._clock = quiet, every_s, clock
        self._live: RichProgress | None = None
        self._task: TaskID | None = None
        self._phase: _Phase | None = None
        self._last_eval = ""

    def __enter__(self) -> Self:
        """Start the live line where there is a terminal."""
        if self._console.is_terminal and not self._quiet:
            # What does not fit is cut at the end of the line, after the time left.
            name, state = (Column(no_wrap=True, overflow="ellipsis", ratio=ratio) for ratio in (None, 1))
            columns: list[ProgressColumn] = [TextColumn("{task.description:<10}", table_column=name), TimeElapsedColumn()]
            if self._console.width >= _WIDE:
                columns.append(BarColumn(bar_width=24))
            columns.append(TextColumn("{task.fields[state]}", table_column=state))
            self._live = RichProgress(*columns, console=self._console, transient=True, expand=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the phase and the live line."""
        self.done(failed=error is not None)
        if self._live:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print a line above the live one."""
        if not self._quiet:
            self._console.print(shown(text), soft_wrap=True, highlight=False, markup=False)

    def show(self, table: Table | str) -> None:
        """Print a table, or a line, above the live one."""
        if isinstance(table, str):
            self.say(table)
        elif not self._quiet:
            self._console.print(table)

    def phase(self, name: str, total: float | None = None, unit: str = "", done: float = 0) -> None:
        """Begin a phase, ending the one before. `done` is where it starts, for instance the step resumed from."""
        self.done()
        self._last_eval = ""
        self._phase = _Phase(name, total, unit, done, self._clock())
        if self._live:
            self._task = self._live.add_task(name, total=total, completed=int(done), state=self._phase.state(self._clock()))
        elif not self._quiet:
            self.say(f"{name}: started" + (f", {format_number(total)} {unit}".rstrip() if total else ""))

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the phase has come."""
        phase = self._phase
        if phase is None:
            return
        phase.note = note
        phase.total = phase.total if total is None else total
        now = self._clock()
        phase.move(done, now)
        if self._live and self._task is not None:
            self._live.update(self._task, completed=done, total=phase.total, state=phase.state(now))
        elif now - phase.printed_at >= self._every_s:
            phase.printed_at = now
            self.say(f"{phase.name}: {phase.state(now)}, {duration(now - phase.began)} elapsed")

    def record(self, record: Mapping[str, Any]) -> None:
        """Show a history record: training moves the phase on, an evaluation is a line of its own."""
        if record.get("kind") == "train":
            self.update(record["step"], record["steps"], ", ".join(filter(None, [_training_note(record), self._last_eval])))
        elif record.get("kind") == "eval":
            headline, *others = _scores(record)
            self._last_eval = f"{record['split']} {headline}"
            self.say(f"evaluation at step {record['step']}: {', '.join([self._last_eval, *others])}")

    def done(self, failed: bool = False) -> None:
        """End the phase with a line that says what it did and how long it took."""
        phase, self._phase = self._phase, None
        if phase is None:
            return
        if self._live and self._task is not None:
            self._live.remove_task(self._task)
            self._task = None
        ending = "stopped" if failed else "done"
        amount = f", {phase.amount()}" if phase.done else ""
        self.say(f"{phase.name}: {ending}{amount} in {duration(self._clock() - phase.began)}")


class _Phase:
    def __init__(self, name: str, total: float | None, unit: str, done: float, began: float) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self.began = self.printed_at = began
        self.note = ""
        self._timed_from: tuple[float, float] | None = None
        """(done, time) of the first step. What comes before it, such as the start of the workers, does not come again."""

    def move(self, done: float, now: float) -> None:
        if self._timed_from is None and done > self.done:
            self._timed_from = (done, now)
        self.done = done

    def amount(self) -> str:
        return f"{format_number(self.done)} {self.unit}".rstrip()

    def state(self, now: float) -> str:
        """Done of total, the time left and the note, as `120/1 500 steps, 3:20 left, loss 1.20`."""
        total = f"/{format_number(self.total)}" if self.total else ""
        parts = [f"{format_number(self.done)}{total} {self.unit}".rstrip()]
        first, since = self._timed_from or (self.done, now)
        if self.total and self.done > first:
            parts.append(f"{duration((now - since) / (self.done - first) * max(self.total - self.done, 0))} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as people read them: 0:07, 12:30, 3:05:09."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _scores(record: Mapping[str, Any]) -> list[str]:
    """The scores of an evaluation; the first one is what checkpoints are chosen by."""
    return [f"{heading} {format_measure(key, record[key])}" for key, heading in HEADINGS.items() if key in record]


_MUCH_WAITING = 0.1
"""Share of a step's time from which on waiting for data is told."""


def _training_note(record: Mapping[str, Any]) -> str:
    loss = record.get("loss")
    parts = [f"epoch {record['epoch']:.4g}"] if "epoch" in record else []
    parts.append("loss nan" if loss is None else f"loss {loss:.4f}")
    for unit in ("utterances", "segments"):
        speed = record.get(f"{unit}_per_s")
        parts += [] if speed is None else [f"{speed:.1f} {unit}/s"]
    share, waited = record.get("floor_share"), record.get("data_wait", 0.0)
    parts += [] if share is None else [f"{100 * share:.0f} % of the floor"]
    parts += [f"{100 * waited:.0f} % waiting for data"] if waited >= _MUCH_WAITING else []
    return ", ".join(parts)
