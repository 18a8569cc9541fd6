"""`report.html` of a sweep, or of any runs side by side: one self-contained page, from the run folders alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import yaml

from raykd.comparing.outcome import Job, outcome_of
from raykd.comparing.scores import difference, starred
from raykd.comparing.tables import CellTable
from raykd.config import load_written_config
from raykd.config.yaml_text import to_yaml
from raykd.tracking.plots import curves_chart, parallel_chart, scatter_chart
from raykd.tracking.progress import duration
from raykd.tracking.report import TEMPLATES
from raykd.tracking.run_folder import RunFolder
from raykd.tracking.table import format_number, format_rate
from raykd.tuning.entries import Entry, Group, last_common_step, ranked
from raykd.tuning.importance import Importance, importances
from raykd.tuning.record import value_text

_NAMED = 6
"""Trials that plots name."""
_MANY = 4
"""Values of a key from which the first and the last are the edges of what was tried."""
_FEW = 8
"""Trials below which the importance of keys is not told."""
_RESAMPLES = 2000


@dataclass(frozen=True)
class Findings:
    """What a sweep, or some runs, say."""

    name: str
    entries: Sequence[Entry]
    groups: Sequence[Group]
    step: int | None
    """The last at which all were scored: there they compare."""
    important: Sequence[Importance]

    @classmethod
    def of(cls, name: str, entries: Sequence[Entry]) -> "Findings":
        """Put together."""
        step = last_common_step(entries)
        scored = [(entry.point, rate) for entry in entries if step is not None and (rate := entry.rate_at(step)) is not None]
        points, rates = [point for point, _ in scored], [rate for _, rate in scored]
        important = importances(points, rates) if len(scored) >= _FEW else []
        return cls(name, entries, ranked(entries), step, important)

    @property
    def best(self) -> Entry | None:
        """The best run of the best group; None where no run came to its end."""
        return self.groups[0].best if self.groups and self.groups[0].finished else None


def render(findings: Findings, command: str, sweep_yaml: str = "") -> str:
    """The page."""
    return TEMPLATES.get_template("sweep.html").render(
        name=findings.name,
        words=in_words(findings),
        tables=[ranking(findings), *importance_table(findings)],
        plots=plots(findings),
        best_yaml=best_yaml(findings.best) if findings.best else "",
        failed=[(entry.name, entry.reason) for entry in findings.entries if entry.state == "failed"],
        command=command,
        sweep_yaml=sweep_yaml,
    )


def best_yaml(entry: Entry) -> str:
    """The config of a run, ready to be run alone."""
    tree: dict[str, Any] = yaml.safe_load(RunFolder(entry.run).read_text("config.yaml"))
    is_trial = tree.get("cluster", {}).get("share") is not None
    set_for_it = {"parent_run", "share", *(("log_model", "system_metrics") if is_trial else ())}
    for section in ("tracking", "cluster"):
        tree[section] = {key: value for key, value in tree.get(section, {}).items() if key not in set_for_it}
    tree["output_dir"] = "runs"
    return to_yaml(tree)


# ---------------------------------------------------------------------------------------------- in words


def in_words(findings: Findings) -> list[str]:
    """What to take, what mattered, and how sure that is."""
    best, groups = findings.best, findings.groups
    if best is None:
        return ["No run has come to its end."]
    group = groups[0]
    text = f"Take {best.name}"
    if best.point:
        text += f" ({_told(best)})"
    text += f": {format_rate(group.dev)} word error rate on dev"
    text += f", {100 * group.spread:.2f} points standard deviation over {len(group.entries)} seeds" if group.spread else ""
    not_done = len(group.entries) - group.finished
    text += f", of which {not_done} did not come to {'its' if not_done == 1 else 'their'} end" if not_done else ""
    text += f"; {format_rate(best.test)} on {best.metrics['student']['split']}" if best.metrics else ""
    return [text + ".", *_at_the_edge(findings), *_against_the_next(best, groups), *_what_mattered(findings), *_saved(findings)]


def _at_the_edge(findings: Findings) -> list[str]:
    """Numbers of which the best run has the first or the last that was tried: the best may lie beyond."""
    assert findings.best is not None
    sentences = []
    for key, value in findings.best.point.items():
        tried = sorted({entry.point[key] for entry in findings.entries if isinstance(entry.point.get(key), int | float)})
        if len(tried) >= _MANY and value in (tried[0], tried[-1]):
            which = "lowest" if value == tried[0] else "highest"
            sentences.append(f"Its {key} is the {which} that was tried: the best may lie beyond, so try values there too.")
    return sentences


def _against_the_next(best: Entry, groups: Sequence[Group]) -> list[str]:
    others = [group for group in groups[1:] if group.finished]
    if not others:
        return []
    second = others[0].best
    text = f"The next best is {second.name} ({_told(second)}) with {format_rate(others[0].dev)} on dev."
    scored = [_scored(one) for one in (best, second)]
    if scored[0] is None or scored[1] is None:
        return [text]
    try:
        change = difference([scored[0]], [scored[1]], _RESAMPLES)
    except ValueError:  # other speech
        return [text]
    sure = "more" if starred(change.p) else "no more"
    return [
        f"{text} On test they differ by {100 * abs(change.value):.2f} points, {sure} than other utterances would explain; what "
        "other seeds would give is not in that."
    ]


def _scored(entry: Entry) -> Any:
    if entry.metrics is None:
        return None
    run = RunFolder(entry.run)
    split = entry.metrics["student"]["split"]
    if not run.has(f"evaluation/student-{split}.parquet"):
        return None
    return outcome_of(run, Job(entry.name, "", entry.seed, load_written_config(run.config_path))).scored.get(split)


def _what_mattered(findings: Findings) -> list[str]:
    if not findings.important:
        return []
    sure = [one for one in findings.important if one.p <= 0.05]
    rest = [one.key for one in findings.important if one.p > 0.05]
    sentences = [f"{one.key} by itself explains {100 * one.share:.0f} % of the differences" for one in sure]
    text = "; ".join(sentences) if sentences else "No key by itself explains more of the differences than chance would"
    if sure and rest:
        text += f"; {', '.join(rest)} no more than chance would"
    return [f"At step {findings.step}, the last at which all were scored: {text}."]


def _saved(findings: Findings) -> list[str]:
    stopped = [entry for entry in findings.entries if entry.state == "stopped"]
    finished = [entry.steps for entry in findings.entries if entry.state == "finished"]
    if not stopped or not finished:
        return []
    whole = fmean(finished) * len(findings.entries)
    trained = sum(entry.steps for entry in findings.entries)
    return [
        f"{len(stopped)} of {len(findings.entries)} trials were stopped early, which saved {100 * (1 - trained / whole):.0f} % "
        "of the steps. Their error rates are those of where they were stopped."
    ]


def _told(entry: Entry) -> str:
    return ", ".join(f"{key} {value_text(value)}" for key, value in entry.point.items()) or "as the others"


# ---------------------------------------------------------------------------------------------- tables and plots


def ranking(findings: Findings) -> CellTable:
    """All groups, the best first."""
    keys = _keys(findings)
    seeds = any(len(group.entries) > 1 for group in findings.groups)
    rows = []
    for group in findings.groups:
        first = group.best
        values = [value_text(group.point[key]) if key in group.point else "" for key in keys]
        spread = "" if group.spread is None else f" ± {100 * group.spread:.2f}"
        tests = [entry.test for entry in group.entries if entry.test is not None]
        states = list(dict.fromkeys(entry.state for entry in group.entries))
        rows.append(
            (
                first.name,
                *values,
                *([str(len(group.entries))] if seeds else []),
                ", ".join(states),
                format_number(max(entry.steps for entry in group.entries)),
                "-" if group.dev is None else f"{100 * group.dev:.2f}{spread}",
                f"{100 * fmean(tests):.2f}" if tests else "-",
                f"{first.speedup:.2f}" if first.speedup is not None else "-",
                duration(sum(entry.seconds for entry in group.entries)),
            )
        )
    header = (
        "run",
        *keys,
        *(["seeds"] if seeds else []),
        "state",
        "steps",
        "dev WER, %",
        "test WER, %",
        "times as fast",
        "time",
    )
    note = "The lowest word error rate on dev of each run; of runs that differ in the seed alone mean and standard deviation."
    if any(group.entries[0].speedup is not None for group in findings.groups):
        note += " Speed is in turns with the teacher, beside the trials that ran at the time."
    return CellTable("Ranking", header, tuple(rows), note)


def importance_table(findings: Findings) -> list[CellTable]:
    """One row a key; nothing for too few runs."""
    if not findings.important:
        return []
    rows = [(one.key, f"{100 * one.share:.0f} %", f"{one.p:.3f}", str(one.trials)) for one in findings.important]
    note = (
        f"Share of the variance of the word error rates on dev at step {findings.step} (the last at which all were scored) "
        "that a key explains by itself: numbers by a parabola, of their logarithms over a factor of 10, other values by their "
        "means. p: share of random shufflings that explain as much. What keys do together is not in it."
    )
    return [CellTable("What mattered", ("key", "explains", "p", "runs"), tuple(rows), note)]


def _keys(findings: Findings) -> list[str]:
    return list(dict.fromkeys(key for entry in findings.entries for key in entry.point))


def plots(findings: Findings) -> list[tuple[str, str]]:
    """(caption, SVG)."""
    drawn = []
    keys = _keys(findings)
    order = [entry for group in findings.groups for entry in group.entries]
    scored = [entry for entry in order if entry.dev is not None]
    if keys and scored:
        rows = [[entry.point.get(key) for key in keys] + [100 * (entry.dev or 0.0)] for entry in scored]
        caption = (
            f"All runs, the best {min(_NAMED, len(scored))} in colour; on the right the word error rate on dev, in percent"
        )
        drawn.append((caption, parallel_chart("parallel coordinates", [*keys, "dev WER, %"], rows, _NAMED)))
    curves = {}
    for entry in scored:
        dev = [record for record in entry.history.eval if record["split"] == "dev"]
        curves[entry.name] = ([record["step"] for record in dev], [100 * record["wer"] for record in dev])
    if curves:
        drawn.append(("Word error rate on dev over training, in percent", curves_chart("curves", "WER, %", curves, _NAMED)))
    for key in keys:
        values = {entry.name: (entry.point.get(key), entry.dev) for entry in scored}
        numbers = {
            name: (float(value), 100 * rate)
            for name, (value, rate) in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and rate is not None
        }
        if len(numbers) > 2:
            drawn.append((f"Word error rate on dev by {key}", scatter_chart(key, key, "dev WER, %", numbers)))
    fast = {
        entry.name: (entry.speedup, 100 * entry.test) for entry in order if entry.speedup is not None and entry.test is not None
    }
    if len(fast) > 1:
        caption = "Word error rate on test against speed, times the teacher's"
        drawn.append((caption, scatter_chart("speed", "times as fast as the teacher", "test WER, %", fast)))
    return drawn


def json_of(findings: Findings) -> str:
    """The numbers, for other programs."""
    rows = [
        {
            "run": entry.name,
            "point": dict(entry.point),
            "seed": entry.seed,
            "state": entry.state,
            "reason": entry.reason,
            "steps": entry.steps,
            "dev_wer": entry.dev,
            "test_wer": entry.test,
            "speedup": entry.speedup,
            "seconds": entry.seconds,
        }
        for entry in findings.entries
    ]
    important = [vars(one) for one in findings.important]
    best = findings.best.name if findings.best else None
    tree = {"best": best, "runs": rows, "importance": important, "compared_at_step": findings.step}
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
