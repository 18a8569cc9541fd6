"""`comparison.html`: one self-contained page about a comparison; and its numbers in MLflow."""

from typing import Any

from raykd.comparing.scores import starred
from raykd.comparing.tables import MEAN, Results, all_tables
from raykd.tracking.plots import bar_chart
from raykd.tracking.report import TEMPLATES


def render(name: str, results: Results, command: str, config_yaml: str) -> str:
    """The page."""
    return TEMPLATES.get_template("comparison.html").render(
        name=name,
        words=in_words(results),
        tables=all_tables(results),
        plots=plots(results),
        failed=results.failed,
        command=command,
        config_yaml=config_yaml,
    )


def in_words(results: Results) -> list[str]:
    """What the tables say, a sentence for each test set and setting."""
    sentences = []
    for test in results.tests:
        for setting in results.settings:
            found = [
                (spread.mean, entry)
                for entry in results.entries
                if entry.setting == setting and (spread := results.rates(entry, test)) is not None
            ]
            if len(found) < 2:
                continue
            rate, best = min(found, key=lambda one: one[0])
            where = f"On {test}" + (f", {setting}" if setting else "")
            text = f"{where}, {best.method} has the lowest word error rate, {100 * rate:.2f} %"
            change = results.differences.get((test, setting, best.method))
            if change is not None:
                sure = "more than other utterances explain" if starred(change.p) else "no more than other utterances explain"
                text += f": {100 * change.value:+.2f} points from {results.against} over all words, {sure}"
            sentences.append(text + ".")
    return sentences


def plots(results: Results) -> list[tuple[str, str]]:
    """(caption, SVG): error rates by method, and the use of experts by setting."""
    drawn = []
    for test in results.tests:
        series = {
            setting or "all": [_mean(results, setting, method, test) for method in results.methods]
            for setting in results.settings
        }
        drawn.append(
            (f"Word error rate on {test}, mean of the languages, in percent", bar_chart(test, results.methods, series))
        )
    for test in results.tests:
        used = _expert_use(results, test)
        if used:
            title = f"Tokens and layers that go through experts on {test}, in percent"
            groups = list(dict.fromkeys(group for values in used.values() for group in values))
            bars = {name: [values.get(group) for group in groups] for name, values in used.items()}
            drawn.append((title, bar_chart(f"experts {test}", groups, bars)))
    return drawn


def _mean(results: Results, setting: str, method: str, test: str) -> float | None:
    entry = next((one for one in results.entries if (one.setting, one.method) == (setting, method)), None)
    spread = results.rates(entry, test) if entry is not None else None
    return None if spread is None else 100 * spread.mean


def _expert_use(results: Results, test: str) -> dict[str, dict[str, float]]:
    """By method and stack: the mean over seeds, in percent, by setting and language."""
    found: dict[str, dict[str, list[float]]] = {}
    for entry in results.entries:
        for one in entry.on(test):
            for language, use in one.expert_use.items():
                for key, share in use.items():
                    group = f"{entry.setting} {language}".strip()
                    series = f"{entry.method}, {key.removeprefix('expert_use_')}"
                    found.setdefault(series, {}).setdefault(group, []).append(100 * share)
    return {name: {group: sum(values) / len(values) for group, values in groups.items()} for name, groups in found.items()}


def metric_values(results: Results) -> dict[str, float]:
    """For MLflow: `wer/<test>/<method>[, <setting>]/<language>`, means over seeds."""
    values = {}
    for entry in results.entries:
        name = ", ".join(filter(None, (entry.method, entry.setting)))
        for test in results.tests:
            codes = sorted({code for one in entry.on(test) for code in one.codes})
            for language in (*codes, MEAN):
                spread = results.rates(entry, test, language)
                if spread is not None:
                    values[f"wer/{test}/{name}/{language}"] = spread.mean
    return values


def json_of(results: Results) -> dict[str, Any]:
    """`comparison.json`."""
    return {
        "against": results.against,
        "failed": [{"run": run, "reason": reason} for run, reason in results.failed],
        "methods": [
            {
                "setting": entry.setting,
                "method": entry.method,
                "runs": [outcome.run for outcome in entry.outcomes],
                "seeds": [outcome.job.seed for outcome in entry.outcomes],
                "facts": dict(entry.outcomes[0].facts),
                "wer": {
                    test: {
                        language: list(spread.values)
                        for language in (*sorted({code for one in entry.on(test) for code in one.codes}), MEAN)
                        if (spread := results.rates(entry, test, language)) is not None
                    }
                    for test in results.tests
                },
                "difference": {
                    test: vars(change)
                    for test in results.tests
                    if (change := results.differences.get((test, entry.setting, entry.method))) is not None
                },
                "expert_use": {
                    test: [one.expert_use for one in entry.on(test)]
                    for test in results.tests
                    if any(one.expert_use for one in entry.on(test))
                },
            }
            for entry in results.entries
        ],
    }
