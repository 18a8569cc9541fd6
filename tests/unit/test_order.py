"""Which utterances make up a step depends on (seed, epoch) only, and every utterance of an epoch is taken exactly once."""

import pickle
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from raykd.config.data import Mix
from raykd.data.corpus import Index
from raykd.data.order import EpochOrder, slot_positions
from raykd.errors import UserError


def index_of(**counts: int) -> Index:
    languages = [language for language, count in counts.items() for _ in range(count)]
    return Index(
        pa.table(
            {
                "id": [f"{number:05d}" for number in range(len(languages))],
                "language": languages,
                "n_tokens": pa.array(range(1, len(languages) + 1), pa.int32()),
            }
        )
    )


def epoch_positions(order: EpochOrder, epoch: int) -> list[int]:
    first = epoch * order.steps_per_epoch
    return [int(position) for step in range(first, first + order.steps_per_epoch) for position in order.global_batch(step)]


def test_every_utterance_once_an_epoch_with_a_smaller_last_batch() -> None:
    order = EpochOrder(index_of(cs=103), seed=3, batch_size=10)
    assert order.steps_per_epoch == 11
    for epoch in range(3):
        assert sorted(epoch_positions(order, epoch)) == list(range(103))
    assert [len(order.global_batch(step)) for step in range(11)] == [10] * 10 + [3]
    assert [order.epoch_of(step) for step in (0, 10, 11, 22)] == [0, 0, 1, 2]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("micro_batches", [1, 2, 5])
def test_workers_and_accumulation_take_each_utterance_of_a_global_batch_once(world: int, micro_batches: int) -> None:
    order = EpochOrder(index_of(cs=103), seed=0, batch_size=16)
    for step in (0, order.steps_per_epoch - 1, order.steps_per_epoch):
        batch = order.global_batch(step)
        slots = [slot for rank in range(world) for slot in slot_positions(batch, rank, world, micro_batches)]
        assert len(slots) == world * micro_batches
        assert sorted(np.concatenate(slots)) == sorted(batch)
        sizes = [len(slot) for slot in slots]
        assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch_only() -> None:
    index = index_of(cs=50)
    order = EpochOrder(index, seed=7, batch_size=8)
    late = EpochOrder(index, seed=7, batch_size=8)
    np.testing.assert_array_equal(late.global_batch(20), order.global_batch(20))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(order)).global_batch(3), order.global_batch(3))
    assert epoch_positions(order, 0) != epoch_positions(order, 1)
    assert epoch_positions(order, 0) != epoch_positions(EpochOrder(index, seed=8, batch_size=8), 0)
    assert epoch_positions(order, 0) == epoch_positions(EpochOrder(index, seed=7, batch_size=50), 0)


def test_order_stays_the_same_over_releases() -> None:
    """A run that was started with an earlier raykd or NumPy must resume with the same batches."""
    assert epoch_positions(EpochOrder(index_of(cs=8), seed=1, batch_size=8), 2) == [7, 1, 3, 0, 4, 2, 6, 5]


def test_tokens_of_a_step_are_counted_over_all_workers() -> None:
    order = EpochOrder(index_of(cs=20), seed=0, batch_size=6)
    assert order.global_tokens(1) == sum(int(position) + 1 for position in order.global_batch(1))
    assert sum(order.global_tokens(step) for step in range(order.steps_per_epoch)) == 20 * 21 // 2


def test_loss_tokens_replace_the_lengths() -> None:
    index = index_of(cs=20)
    masked = np.arange(20) * 100
    order = EpochOrder(index, seed=0, batch_size=6, loss_tokens=masked)
    np.testing.assert_array_equal(order.global_batch(1), EpochOrder(index, seed=0, batch_size=6).global_batch(1))
    assert order.global_tokens(1) == sum(100 * int(position) for position in order.global_batch(1))


def drawn(mix: Mix, epochs: int = 1, **counts: int) -> tuple[dict[str, int], list[Counter[int]]]:
    index = index_of(**counts)
    order = EpochOrder(index, seed=0, batch_size=7, mix=mix)
    times = [Counter(epoch_positions(order, epoch)) for epoch in range(epochs)]
    languages = Counter(index.languages[position] for position in times[0].elements())
    return dict(languages), times


def test_shares_give_each_language_its_part_of_an_epoch() -> None:
    languages, times = drawn(Mix(shares={"Czech": 3, "uk": 1}), cs=90, uk=10)
    assert languages == {"cs": 75, "uk": 25}
    assert {times[0][position] for position in range(90)} == {0, 1}
    assert {times[0][position] for position in range(90, 100)} == {2, 3}


def test_temperature_lifts_small_languages() -> None:
    languages, _ = drawn(Mix(temperature=2.0), cs=64, pl=16, uk=4)
    assert languages == {"cs": 48, "pl": 24, "uk": 12}
    languages, times = drawn(Mix(temperature=1.0), cs=64, uk=4)
    assert languages == {"cs": 64, "uk": 4}
    assert set(times[0].values()) == {1}


def test_utterances_take_turns_over_the_epochs() -> None:
    _, times = drawn(Mix(shares={"cs": 1, "uk": 1}), epochs=9, cs=90, uk=10)
    total: Counter[int] = sum(times, Counter())
    assert {total[position] for position in range(90)} == {5}
    assert {total[position] for position in range(90, 100)} == {45}


def test_shares_must_name_the_languages_of_the_data() -> None:
    index = index_of(cs=5, uk=5)
    with pytest.raises(UserError, match=r"data\.mix\.shares: names cs, de, but the training data has cs, uk"):
        EpochOrder(index, 0, 4, Mix(shares={"cs": 1, "de": 1}))
    with pytest.raises(UserError, match=r"data\.mix\.shares: names cs, but"):
        EpochOrder(index, 0, 4, Mix(shares={"cs": 1}))


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(UserError, match="no utterance is left"):
        EpochOrder(index_of(), 0, 4)
