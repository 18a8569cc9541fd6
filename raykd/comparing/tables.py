"""The tables of a comparison, as text cells: for the terminal, the page and Markdown alike. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from raykd.comparing.outcome import Outcome
from raykd.comparing.scores import KINDS, Difference, Scored, Spread, difference, starred, told
from raykd.tracking.progress import duration
from raykd.tracking.table import CellTable, format_count

MEAN = "mean"


@dataclass(frozen=True)
class Entry:
    """A method in a setting: its runs, one a seed."""

    setting: str
    method: str
    outcomes: tuple[Outcome, ...]

    def on(self, test: str) -> list[Scored]:
        """Of each run that was scored on this."""
        return [outcome.scored[test] for outcome in self.outcomes if test in outcome.scored]


@dataclass(frozen=True)
class Results:
    """All outcomes, in the order of the table."""

    entries: tuple[Entry, ...]
    against: str | None
    resamples: int
    timed_with: str = "the run's own teacher"
    """What speeds are relative to, in words."""
    failed: tuple[tuple[str, str], ...] = ()
    """(run, why) of those that came to no end."""
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)
    """By (test, setting, method)."""

    @classmethod
    def of(
        cls,
        outcomes: Sequence[Outcome],
        against: str | None,
        resamples: int,
        failed: Sequence[tuple[str, str]] = (),
        timed_with: str | None = None,
    ) -> "Results":
        """Put together, and tested against the method of that name, or the first one that was trained. `timed_with`: the model
        as it is that all were timed with."""
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in outcomes:
            groups.setdefault((outcome.job.setting, outcome.job.method), []).append(outcome)
        entries = tuple(Entry(setting, method, tuple(group)) for (setting, method), group in groups.items())
        trained = next((entry.method for entry in entries if entry.outcomes[0].run is not None), None)
        results = cls(entries, against or trained, resamples, timed_with or cls.timed_with, tuple(failed))
        for entry in entries:
            for test in results.tests:
                found = results._difference(entry, test)
                if found is not None:
                    results.differences[test, entry.setting, entry.method] = found
        return results

    def _difference(self, entry: Entry, test: str) -> Difference | None:
        """From the reference in the same setting."""
        reference = next((one for one in self.entries if (one.setting, one.method) == (entry.setting, self.against)), None)
        if reference is None or entry.method == self.against:
            return None
        ours, theirs = entry.on(test), reference.on(test)
        try:
            return difference(ours, theirs, self.resamples) if ours and theirs else None
        except ValueError:  # runs that were tested on other speech
            return None

    @property
    def tests(self) -> list[str]:
        """What anything was scored on."""
        return list(dict.fromkeys(test for entry in self.entries for outcome in entry.outcomes for test in outcome.scored))

    @property
    def settings(self) -> list[str]:
        """The settings, in order."""
        return list(dict.fromkeys(entry.setting for entry in self.entries))

    @property
    def methods(self) -> list[str]:
        """The methods, in order."""
        return list(dict.fromkeys(entry.method for entry in self.entries))

    def rates(self, entry: Entry, test: str, language: str = MEAN) -> Spread | None:
        """Word error rates over seeds; of the mean of the languages unless one is named."""
        runs = [one for one in entry.on(test) if language in (MEAN, *one.codes)]
        values = [one.mean_rate() if language == MEAN else one.rate(language) for one in runs]
        return Spread(tuple(values)) if values else None


def rate_table(results: Results, test: str) -> CellTable:
    """Word error rates of all methods on one test set, by language."""
    languages = sorted({code for entry in results.entries for one in entry.on(test) for code in one.codes})
    columns = [*languages, MEAN] if len(languages) > 1 else languages
    rows = []
    for entry in results.entries:
        spreads = [results.rates(entry, test, column) for column in columns]
        if any(spreads):
            change = results.differences.get((test, entry.setting, entry.method))
            cells = ["-" if spread is None else told(spread) for spread in spreads]
            rows.append((*_names(results, entry), *cells, _told_difference(change)))
    against = f"difference from {results.against}" if results.against else ""
    return CellTable(
        f"Word error rate on {test}, in percent",
        (*_headings(results), *columns, against),
        tuple(rows),
        "± is the standard deviation over seeds. The difference is over all words, with the middle 95 % of a paired bootstrap "
        "over utterances; * p < 0.05, ** p < 0.01.",
        len(_headings(results)),
    )


def kind_table(results: Results, test: str) -> CellTable:
    """What is wrong, by kind: counts on one test set."""
    rows = []
    for entry in results.entries:
        runs = entry.on(test)
        if runs:
            counts = [_count(Spread(tuple(float(one.kinds[kind]) for one in runs))) for kind in KINDS]
            rows.append((*_names(results, entry), str(int(runs[0].words_I.sum())), *counts))
    header = (*_headings(results), "words", *(kind.replace("_", " ") for kind in KINDS))
    note = "Mean over seeds; repeated 5-grams: five words in a row that the same transcript had before."
    return CellTable(f"Errors by kind on {test}", header, tuple(rows), note, len(_headings(results)))


def cost_table(results: Results) -> CellTable:
    """What each method costs."""
    rows = []
    for entry in results.entries:
        facts = [outcome.facts for outcome in entry.outcomes]
        sizes = (_first(facts, "trained"), _first(facts, "stored"), _first(facts, "active"))
        seconds = [value for fact in facts if (value := fact.get("train_s")) is not None]
        speedup, memory, passes = (_first(facts, key) for key in ("speedup", "memory_gb", "teacher_passes"))
        rows.append(
            (
                *_names(results, entry),
                *("-" if size is None else format_count(int(size)) for size in sizes),
                duration(Spread(tuple(seconds)).mean) if seconds else "-",
                *("-" if number is None else f"{number:.2f}" for number in (passes, memory)),
                "-" if speedup is None else f"{speedup:.2f}",
            )
        )
    header = (*_headings(results), "trained", "stored", "active", "training", "teacher passes", "GB", "times as fast")
    note = (
        "Parameters: trained, in the student's folder, and passed by a token. Training: time, passes of any teacher to an "
        "utterance that is trained on, peak memory of the first worker. Speed at the first batch size measured, in turns with "
        f"{results.timed_with}."
    )
    return CellTable("What it costs", header, tuple(rows), note, len(_headings(results)))


def expert_table(results: Results, test: str) -> CellTable | None:
    """Share of tokens and layers that go through experts; None where nobody has any."""
    rows = []
    for entry in results.entries:
        runs = entry.on(test)
        for language in sorted({code for one in runs for code in one.expert_use}):
            use = [one.expert_use[language] for one in runs if language in one.expert_use]
            shares = [
                Spread(tuple(one[f"expert_use_{stack}"] for one in use if f"expert_use_{stack}" in one))
                for stack in ("encoder", "decoder")
            ]
            rows.append((*_names(results, entry), language, *(told(share) if share.values else "-" for share in shares)))
    if not rows:
        return None
    header = (*_headings(results), "language", "encoder", "decoder")
    return CellTable(
        f"Tokens and layers that go through experts on {test}, in percent", header, tuple(rows), "", len(_headings(results)) + 1
    )


def all_tables(results: Results) -> list[CellTable]:
    """In the order of the page."""
    experts = [table for test in results.tests if (table := expert_table(results, test)) is not None]
    rates = [table for test in results.tests for table in (rate_table(results, test), kind_table(results, test))]
    return [*rates, cost_table(results), *experts]


def as_markdown(table: CellTable) -> str:
    """For a document."""
    lines = [" | ".join(("", *cells, "")).strip() for cells in (table.header, *table.rows)]
    lines.insert(1, "|" + "---|" * len(table.header))
    return "\n".join([f"**{table.title}**", "", *lines, "", table.note]).rstrip() + "\n"


def _count(spread: Spread) -> str:
    text = f"{spread.mean:.4g}"
    return text if spread.deviation is None else f"{text} ± {spread.deviation:.2g}"


def _headings(results: Results) -> tuple[str, ...]:
    return ("setting", "method") if len(results.settings) > 1 else ("method",)


def _names(results: Results, entry: Entry) -> tuple[str, ...]:
    return (entry.setting, entry.method) if len(results.settings) > 1 else (entry.method,)


def _first(facts: Sequence[object], key: str) -> float | None:
    return next((value for fact in facts if (value := fact.get(key)) is not None), None)  # type: ignore[attr-defined]


def _told_difference(change: Difference | None) -> str:
    if change is None:
        return ""
    return f"{100 * change.value:+.2f} [{100 * change.low:+.2f}, {100 * change.high:+.2f}]{starred(change.p)}"
