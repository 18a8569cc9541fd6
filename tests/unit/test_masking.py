"""Masks are drawn uniformly, as many as asked for, and follow from (seed, epoch, id) alone."""

import numpy as np
import pytest

from raykd.data.masking import masked_counts, masked_positions


def test_one_position_or_a_share_of_the_sequence() -> None:
    lengths = np.array([5, 6, 20, 33])
    assert masked_counts(lengths, None).tolist() == [1, 1, 1, 1]
    assert masked_counts(lengths, 0.15).tolist() == [1, 1, 3, 5]
    assert masked_counts(lengths, 1.0).tolist() == lengths.tolist()


@pytest.mark.parametrize(("length", "count"), [(1, 1), (12, 1), (12, 5), (12, 12), (700, 105)])
def test_positions_are_distinct_ascending_and_inside(length: int, count: int) -> None:
    positions = masked_positions(length, count, 0, 3, "id")
    assert len(positions) == count
    assert (np.diff(positions) > 0).all()
    assert positions.min() >= 0
    assert positions.max() < length


def test_positions_follow_from_the_key() -> None:
    assert masked_positions(30, 4, 0, 1, "a").tolist() == masked_positions(30, 4, 0, 1, "a").tolist()
    others = [masked_positions(30, 4, *key).tolist() for key in ((0, 1, "a"), (0, 2, "a"), (1, 1, "a"), (0, 1, "b"))]
    assert len({tuple(other) for other in others}) == 4


def test_positions_stay_the_same_over_releases() -> None:
    """A run that was started with an earlier raykd must resume with the same masks."""
    assert masked_positions(20, 3, 7, 2, "0123456789abcdef").tolist() == [0, 18, 19]


@pytest.mark.parametrize("count", [1, 3])
def test_every_position_is_masked_equally_often(count: int) -> None:
    length, visits = 10, 20_000
    times = np.zeros(length)
    for number in range(visits):
        times[masked_positions(length, count, 0, 0, f"{number:016x}")] += 1
    share = count / length
    spread = np.sqrt(visits * share * (1 - share))
    assert np.abs(times - visits * share).max() < 4 * spread
