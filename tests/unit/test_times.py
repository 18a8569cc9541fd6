"""Times of tables, as text and values of every kind."""

import datetime
from decimal import Decimal
from typing import Any

import pytest

from raykd.data.times import is_filled, seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        ("1.5", 1.5),
        (" 1,5 ", 1.5),
        ("12,345", 12.345),
        ("1e-1", 0.1),
        ("1.5s", 1.5),
        ("1.5 sec.", 1.5),
        ("1500 ms", 1.5),
        ("00:00:01.500", 1.5),
        ("00:00:01,500", 1.5),
        ("1:02.5", 62.5),
        ("90:00", 5400.0),
        ("1:00:00", 3600.0),
        ("0 days 00:00:01.5", 1.5),
        (Decimal("1.5"), 1.5),
        (datetime.timedelta(seconds=1.5), 1.5),
        (datetime.time(0, 1, 2, 500_000), 62.5),
        (-0.02, 0.0),
        ("-0,02", 0.0),
        (-1, None),
        (float("inf"), None),
        (True, None),
        ([1.0], None),
        (b"1", None),
        (datetime.datetime(2024, 1, 1), None),
        ("soon", None),
        ("1 h", None),
        ("1.234,5", None),
        ("00:00:01:12", None),
        ("1:75:00", None),
        ("0:75", None),
    ],
)
def test_times_in_seconds(value: Any, expected: float | None) -> None:
    assert is_filled(value)
    assert seconds(value) == pytest.approx(expected)


def test_units_are_of_numbers_alone() -> None:
    """A clock, a span and text with a unit tell their own; thousands and decimals are not told apart."""
    assert [seconds(value, 1e-3) for value in (1500, "1500", "1,5", "1.5 s", "0:01.5")] == [1.5, 1.5, 0.0015, 1.5, 1.5]
    assert seconds("1,500", 1e-3) is None
    assert not any(map(is_filled, (None, "", " ", "NaN", "null", float("nan"))))
