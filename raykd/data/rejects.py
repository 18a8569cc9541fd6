"""Rows that cannot be used: their reasons, and when there are too many of them."""

from collections.abc import Mapping

import pyarrow as pa

from raykd.errors import UserError

DUPLICATE_ID = "duplicate id"
NO_TEXT = "no letters or digits in the text"
TEXT_TOO_SHORT = "text too short"
TEXT_TOO_LONG = "text too long"
MARKERS = "markers in the text"
SAME_RECORDING = "same recording as in another split"
UNKNOWN_LANGUAGE = "unknown language"
TOO_MANY_TOKENS = "too many label tokens"
TEXT_DOES_NOT_FIT = "text does not fit audio"
NOT_PROCESSED = "could not be processed"
FILTERED = "filtered: "
"""Start of the reasons of rows that could be used and were not wanted."""

REJECT_COLUMNS = ["id", "reason", "detail", "path"]
_REASONS_SHOWN = 5


class RejectedError(Exception):
    """A row that cannot be used. `reason` is short and the same for all rows of its kind, `detail` is about this row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def count_reasons(rejects: pa.Table) -> dict[str, int]:
    """Rows by reason, the commonest first."""
    counts = [(item["values"], item["counts"]) for item in rejects.column("reason").value_counts().to_pylist()]
    return dict(sorted(counts, key=lambda item: (-item[1], item[0])))


def check_rejects(
    reasons: Mapping[str, int],
    rows: int,
    max_share: float,
    rejects_path: str | None,
    section: str = "data",
    what: str = "rows",
) -> None:
    """Stop when too many rows cannot be used. `section` is the part of the config that they are of, `what` names them,
    `rejects_path` is where each is listed.

    Raises:
        UserError: no row can be used, or more than `max_share` of them cannot (filtered ones aside); it names the
            commonest reasons.
    """
    rejected = sum(reasons.values())
    faulty = sum(count for reason, count in reasons.items() if not reason.startswith(FILTERED))
    if rows == 0:
        raise UserError(f"{section}.source: there are no {what}; check the path")
    if rejected < rows and faulty <= max_share * rows:
        return
    commonest = ", ".join(f"{reason} ({count})" for reason, count in list(reasons.items())[:_REASONS_SHOWN])
    limit = f"more than {section}.max_reject_share={max_share:g} allows" if rejected < rows else "that is all of them"
    raise UserError(
        f"{section}.source: {faulty if rejected < rows else rejected} of {rows} {what} cannot be used, {limit}: {commonest}; "
        f"{f'see {rejects_path}, ' if rejects_path else ''}mend them or the {section} section of the config"
    )
