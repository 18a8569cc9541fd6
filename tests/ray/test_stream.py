"""The stream over Ray Data gives what reading in this process gives: each utterance of an epoch once, for any workers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from raykd.data import stream
from raykd.data.corpus import Corpus
from raykd.data.order import EpochOrder
from raykd.data.stream import Reading, StepBatches, local_steps, speech_reading, stream_steps
from raykd.parts.inputs.spec_augment import SpecAugment
from tests.corpora import make_corpus, row, speech_format

SEED = 5
MASKED = SpecAugment().change_row


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_whisper_dir: Path) -> Corpus:
    rows = [row(number) for number in range(21)] + [row(100, split="dev"), row(101, split="test")]
    return make_corpus(tmp_path_factory.mktemp("corpus"), tiny_whisper_dir, rows)


@pytest.fixture(scope="module")
def order(corpus: Corpus) -> EpochOrder:
    return EpochOrder(corpus.index("train"), SEED, batch_size=5)


def assert_same(one: StepBatches, other: StepBatches) -> None:
    assert (one.step, one.epoch, one.global_tokens, one.global_utterances) == (
        other.step,
        other.epoch,
        other.global_tokens,
        other.global_utterances,
    )
    for batch, twin in zip(one.micro, other.micro, strict=True):
        assert (batch.ids, batch.languages, batch.audio_s) == (twin.ids, twin.languages, twin.audio_s)
        assert torch.equal(batch.mel_BMF, twin.mel_BMF)
        assert torch.equal(batch.decoder_input_BU, twin.decoder_input_BU)
        assert torch.equal(batch.labels_BU, twin.labels_BU)


@pytest.mark.parametrize(("rank", "world", "micro_batches", "steps"), [(0, 1, 1, range(0, 12)), (1, 2, 2, range(7, 11))])
def test_stream_equals_reading_in_process(
    corpus: Corpus,
    order: EpochOrder,
    tiny_whisper_dir: Path,
    ray_local: None,
    rank: int,
    world: int,
    micro_batches: int,
    steps: range,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "_TASK_BYTES", 0)  # all but the first step by Ray Data
    of_model = speech_format(tiny_whisper_dir)
    reading = speech_reading(corpus, "train", order, rank, world, micro_batches, of_model, SEED, [MASKED])
    streamed = list(stream_steps(reading, steps))
    assert [batches.step for batches in streamed] == list(steps)
    for one, other in zip(streamed, local_steps(reading, steps), strict=True):
        assert_same(one, other)


def test_a_long_stream_is_read_in_several_segments(
    corpus: Corpus, order: EpochOrder, tiny_whisper_dir: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_TASK_BYTES", 200_000)
    reading = speech_reading(corpus, "train", order, 0, 1, 1, speech_format(tiny_whisper_dir), SEED)
    streamed = list(stream_steps(reading, range(2, 40)))
    assert [batches.step for batches in streamed] == list(range(2, 40))
    for one, other in zip(streamed, local_steps(reading, range(2, 40)), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(("world", "micro_batches"), [(1, 1), (2, 1), (3, 2), (8, 1)])
def test_every_utterance_of_an_epoch_once_over_all_workers(
    corpus: Corpus, order: EpochOrder, tiny_whisper_dir: Path, world: int, micro_batches: int
) -> None:
    steps = range(order.steps_per_epoch)
    ids: list[str] = []
    tokens = [0] * len(steps)
    for rank in range(world):
        of_model = speech_format(tiny_whisper_dir)
        reading = speech_reading(corpus, "train", order, rank, world, micro_batches, of_model, SEED)
        for batches in local_steps(reading, steps):
            assert len(batches.micro) == micro_batches
            ids += [utterance for batch in batches.micro for utterance in batch.ids]
            tokens[batches.step] += sum(int((batch.labels_BU != -100).sum()) for batch in batches.micro)
            assert batches.global_utterances == len(order.global_batch(batches.step))
            assert tokens[batches.step] <= batches.global_tokens
            assert all(batch.mel_BMF.shape[1:] == (80, 500) for batch in batches.micro)
    assert sorted(ids) == sorted(corpus.index("train").ids)
    assert tokens == [order.global_tokens(step) for step in steps]


def test_masks_change_with_the_epoch_and_not_with_the_workers(
    corpus: Corpus, order: EpochOrder, tiny_whisper_dir: Path
) -> None:
    of_model = speech_format(tiny_whisper_dir)

    def mels(steps: range, world: int) -> dict[str, torch.Tensor]:
        readings = [speech_reading(corpus, "train", order, rank, world, 1, of_model, SEED, [MASKED]) for rank in range(world)]
        return {
            utterance: mel_MF
            for reading in readings
            for batches in local_steps(reading, steps)
            for batch in batches.micro
            for utterance, mel_MF in zip(batch.ids, batch.mel_BMF, strict=False)
        }

    epoch = order.steps_per_epoch
    one, three = mels(range(epoch), 1), mels(range(epoch), 3)
    assert one.keys() == three.keys()
    assert all(torch.equal(one[utterance], three[utterance]) for utterance in one)
    later = mels(range(epoch, 2 * epoch), 1)
    assert any(not torch.equal(one[utterance], later[utterance]) for utterance in one)


def test_no_steps_are_no_batches(corpus: Corpus, order: EpochOrder, tiny_whisper_dir: Path, ray_local: None) -> None:
    reading = speech_reading(corpus, "train", order, 0, 1, 1, speech_format(tiny_whisper_dir), SEED)
    assert list(stream_steps(reading, range(3, 3))) == []


def test_a_stream_that_is_closed_early_stops_reading(
    corpus: Corpus, order: EpochOrder, tiny_whisper_dir: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_TASK_BYTES", 200_000)
    reading = speech_reading(corpus, "train", order, 0, 1, 1, speech_format(tiny_whisper_dir), SEED)
    batches: Iterator[StepBatches] = stream_steps(reading, range(100_000))
    assert [next(batches).step for _ in range(3)] == [0, 1, 2]
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("raykd-", "StreamingExecutor"))]


@ray.remote(num_cpus=0.75)
class Worker:
    """A process that holds a share of the CPUs and streams, as a training worker does."""

    def ids(self, reading: Reading, steps: range) -> list[str]:
        stream._TASK_BYTES = 0
        return [name for batches in stream_steps(reading, steps) for batch in batches.micro for name in batch.ids]


def test_workers_that_hold_most_cpus_stream_at_the_same_time(
    corpus: Corpus, order: EpochOrder, tiny_whisper_dir: Path, ray_local: None
) -> None:
    of_model = speech_format(tiny_whisper_dir)
    workers = [Worker.remote() for _ in range(2)]  # type: ignore[attr-defined]
    steps = range(2 * order.steps_per_epoch)
    parts = [
        worker.ids.remote(speech_reading(corpus, "train", order, rank, 2, 1, of_model, SEED), steps)
        for rank, worker in enumerate(workers)
    ]
    ids = [name for part in ray.get(parts, timeout=120) for name in part]
    assert sorted(ids) == sorted([*corpus.index("train").ids] * 2)
    for worker in workers:
        ray.kill(worker)
