"""What a person wants to know of a teacher's labels: how many, how good, and what a filter would drop."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from raykd.config.data import LabelFilter
from raykd.data.labels import why_dropped
from raykd.evaluation.differences import worst_table
from raykd.evaluation.normalize import NormalizerChoice, normalizer_for

THRESHOLDS = (0.05, 0.1, 0.2)
_WORST = 20


def summary(rows: Sequence[Mapping[str, Any]], limits: LabelFilter) -> dict[str, Any]:
    """Counts over the labelled rows, of each language and of all.

    Returns:
        `languages` (of each, and of `all` together: utterances, hours, kept, kept_hours, words, word_errors, wer and, by
        threshold, dropped: the share of utterances with a gold text whose WER is higher), `reasons` (utterances the filter
        drops, by reason) and `worst` (ids of the highest WER).
    """
    labelled = [row for row in rows if row["text"] is not None]
    languages = sorted({row["language"] for row in labelled})
    groups = {language: [row for row in labelled if row["language"] == language] for language in languages}
    reasons: dict[str, int] = {}
    for row in labelled:
        reason = why_dropped(row, limits)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
    wrong = [row for row in labelled if row["wer"]]
    worst = sorted(wrong, key=lambda row: (-row["wer"], -row["words"], row["id"]))[:_WORST]
    return {
        "languages": {name: _counts(group, limits) for name, group in [*groups.items(), ("all", labelled)]},
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "worst": [row["id"] for row in worst],
    }


def _counts(rows: Sequence[Mapping[str, Any]], limits: LabelFilter) -> dict[str, Any]:
    kept = [row for row in rows if why_dropped(row, limits) is None]
    judged = [row for row in rows if row["wer"] is not None]
    words, errors = (sum(row[key] for row in judged) for key in ("words", "word_errors"))
    return {
        "utterances": len(rows),
        "hours": sum(row["duration_s"] for row in rows) / 3600,
        "kept": len(kept),
        "kept_hours": sum(row["duration_s"] for row in kept) / 3600,
        "words": words,
        "word_errors": errors,
        "wer": errors / words if words else None,
        "dropped": {
            f"{limit:g}": sum(row["wer"] > limit for row in judged) / len(judged) if judged else None for limit in THRESHOLDS
        },
    }


def tables(
    found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], normalizer: NormalizerChoice, worst: int = _WORST
) -> Iterator[Table | str]:
    """The summary for a terminal."""
    yield _languages_table(found["languages"])
    if found["reasons"]:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in found["reasons"].items())
        yield f"a source of kind `labels` drops: {reasons}"
    by_id = {row["id"]: row for row in rows}
    if found["worst"][:worst]:
        yield worst_table(_normalized(by_id[one], normalizer) for one in found["worst"][:worst])


def _languages_table(languages: Mapping[str, Mapping[str, Any]]) -> Table:
    title = "labels: kept by the filter, WER against gold, share over a WER"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    table.add_column("language")
    limits = [f">{100 * limit:g}%" for limit in THRESHOLDS]
    for heading in ("utterances", "hours", "kept", "hours kept", "WER", *limits):
        table.add_column(heading, justify="right", no_wrap=True)
    names = [name for name in languages if name != "all" or len(languages) > 2]
    for name in names:
        counts = languages[name]
        shares = ["-" if share is None else f"{share:.0%}" for share in counts["dropped"].values()]
        hours, kept = f"{counts['hours']:.2f}", f"{counts['kept_hours']:.2f}"
        table.add_row(name, str(counts["utterances"]), hours, str(counts["kept"]), kept, _percent(counts["wer"]), *shares)
    return table


def _normalized(row: Mapping[str, Any], choice: NormalizerChoice) -> tuple[str, float, str, str]:
    normalize = normalizer_for(choice, row["language"])[1]
    return row["id"], row["wer"], normalize(row["gold"]), normalize(row["text"])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"
