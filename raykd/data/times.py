"""Times as tables of all kinds write them, in seconds."""

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from raykd.data.columns import (
    DURATION_COLUMNS,
    END_COLUMNS,
    IN_MS,
    IN_SAMPLES_COLUMNS,
    NO_UNIT_COLUMNS,
    OFFSET_COLUMNS,
    ONSET_COLUMNS,
    START_COLUMNS,
)

NO_START = "part of a longer recording without its start"
NO_END = "part of a longer recording without its end"
NO_LENGTH = "part of a longer recording that ends before it begins"
TWO_STARTS = "part of a longer recording with a start and another offset; name one in data.source.columns"
IN_SAMPLES = "part of a longer recording in samples; give data.source.columns with time_unit and rate"
NO_UNIT = "part of a longer recording in an unknown unit; give data.source.columns with time_unit"

_NOTHING = {"", "nan", "none", "null", "n/a", "nat"}
_ROUNDED_S = 0.1
"""A time before 0 by less than this was rounded, or guessed by an aligner: 0."""
_NUMBER = re.compile(r"([+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\.?", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+) days?,? )?(?:(\d+):)?(\d+):(\d+(?:[.,]\d*)?)")
_THOUSANDS = re.compile(r"\d{1,3},\d{3}")
_UNITS_S = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 1e-3),
}


class PartError(Exception):
    """What is wrong with a part of a recording, as the reason why its row cannot be used."""


def is_filled(value: Any) -> bool:
    """Whether a field of a time says anything: null, NaN and their spellings do not."""
    if isinstance(value, str):
        return value.strip().lower() not in _NOTHING
    return value is not None and value == value


def seconds(value: Any, unit_s: float = 1.0) -> float | None:
    """A filled time as seconds, 0 or more: a number of units, text with a unit of its own (`1.5 s`, `1500 ms`), the time of a
    clock (`00:01:02.5`, `1:02,5`) or a span; decimal commas are understood. None: it is none of these, or before 0.
    """
    if isinstance(value, datetime.timedelta):
        found = value.total_seconds()
    elif isinstance(value, datetime.time):
        found = value.hour * 3600 + value.minute * 60 + value.second + value.microsecond * 1e-6
    elif isinstance(value, str):
        told = _in_text(value.strip(), unit_s)
        if told is None:
            return None
        found = told
    else:
        try:
            found = math.nan if isinstance(value, bool | bytes | datetime.date) else float(value) * unit_s
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, found) if math.isfinite(found) and found > -_ROUNDED_S else None


def _in_text(text: str, unit_s: float) -> float | None:
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        days, hours, minutes = (int(part or 0) for part in clock.groups()[:3])
        rest = float(clock[4].replace(",", "."))
        return ((days * 24 + hours) * 60 + minutes) * 60 + rest if rest < 60 and (minutes < 60 or clock[2] is None) else None
    number = _NUMBER.fullmatch(text)
    if number is None or (_THOUSANDS.fullmatch(number[1]) and unit_s != 1):  # 1,500 ms may be 1.5 or 1500
        return None
    unit = _UNITS_S.get(number[2].lower(), None if number[2] else unit_s)
    return None if unit is None else float(number[1].replace(",", ".")) * unit


def span_of(fields: Mapping[str, Any], unit_s: float) -> tuple[float | None, float | None]:
    """Start of an utterance in its file (None: it is the file) and its length, by its columns.

    Parts are written as `offset` with `duration` (NeMo's manifests), as `start` with `end`, or as `onset` with `offset`; in
    seconds unless the column or the config says otherwise.

    Raises:
        PartError: they are no part of a recording, and not the whole.
    """
    onset_s = _time(fields, ONSET_COLUMNS, unit_s)
    has_onset = onset_s is not None
    start_s = onset_s if has_onset else _time(fields, START_COLUMNS, unit_s)
    end_s = _time(fields, (*END_COLUMNS, *OFFSET_COLUMNS) if has_onset else END_COLUMNS, unit_s)
    if end_s is None and not has_onset:
        offset_s = _time(fields, OFFSET_COLUMNS, unit_s)
        if offset_s is not None and start_s not in (None, offset_s):
            raise PartError(TWO_STARTS)
        start_s = offset_s if start_s is None else start_s
    if start_s is None:
        return None, _whole(fields, end_s, unit_s)
    duration_s = _time(fields, DURATION_COLUMNS, unit_s) if end_s is None else end_s - start_s
    if duration_s is None and start_s > 0:
        raise PartError(NO_END)
    if duration_s is not None and duration_s <= 0:
        raise PartError(NO_LENGTH)
    return (None if duration_s is None else start_s), duration_s


def _whole(fields: Mapping[str, Any], end_s: float | None, unit_s: float) -> float | None:
    """The length that a row declares that has no start."""
    for columns, reason in ((IN_SAMPLES_COLUMNS, IN_SAMPLES), (NO_UNIT_COLUMNS, NO_UNIT)):
        if any(is_filled(fields.get(name)) for name in columns):
            raise PartError(reason)
    if end_s is not None:
        raise PartError(NO_START)
    try:
        return _time(fields, DURATION_COLUMNS, unit_s)
    except PartError:  # of a whole file it is nothing but a remark, and -1 is common
        return None


def _time(fields: Mapping[str, Any], columns: Sequence[str], unit_s: float) -> float | None:
    """The time in the first of the columns, or of those like them in milliseconds, that holds anything."""
    for names, unit in ((columns, unit_s), ([IN_MS[name] for name in columns if name in IN_MS], 1e-3)):
        name = next((name for name in names if is_filled(fields.get(name))), None)
        if name is not None:
            found = seconds(fields[name], unit)
            if found is None:
                raise PartError(f"{name} is no time")
            return found
    return None
