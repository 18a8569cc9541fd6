"""Text becomes a corpus once, the same one whatever the cores, and streams the same batches to any number of workers."""

import gzip
import json
import lzma
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raykd.config.text import TextConfig
from raykd.data.corpus import Corpus, open_corpus, read_rows
from raykd.data.masking import masked_counts
from raykd.data.order import EpochOrder
from raykd.data.stream import Reading, StepBatches, local_steps, stream_steps, text_reading
from raykd.data.text import LabelEncoder
from raykd.data.text_corpus import prepare_text
from raykd.errors import UserError

N_LINES = 1500
SEED, MASK_SHARE = 3, 0.15


def write_lines(folder: Path) -> list[str]:
    """Two files of random sentences, one of them packed; a line in a hundred comes again."""
    draws = random.Random(0)
    syllables = [a + b for a in "bdklmnprst" for b in "aeiouáě"]
    words = ["".join(draws.choices(syllables, k=draws.randint(1, 3))) for _ in range(3000)]
    lines = [" ".join(draws.choices(words, k=draws.randint(5, 30))) for _ in range(N_LINES)]
    lines[100::100] = lines[:-100:100]
    (folder / "a.txt").write_text("\n".join(lines[:700]) + "\n")
    (folder / "b.txt.xz").write_bytes(lzma.compress(("\n".join(lines[700:]) + "\n").encode()))
    return lines


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_lines(folder)
    return folder


def config_for(text: Path, cache: Path, **values: object) -> TextConfig:
    usual = {"source": str(text), "language": "Czech", "cache_dir": str(cache), "shard_segments": 300}
    return TextConfig.model_validate(usual | values)


@pytest.fixture(scope="module")
def corpus(text: Path, tmp_path_factory: pytest.TempPathFactory, tiny_whisper_dir: Path, ray_local: None) -> Corpus:
    return prepare_text(config_for(text, tmp_path_factory.mktemp("cache")), str(tiny_whisper_dir))


def content(corpus: Corpus) -> list[tuple[str, str, list[int]]]:
    index = corpus.index("all")
    rows = read_rows(corpus.path, index.shard_names, index.shard, index.row, corpus.rows_per_batch)
    splits = index.table.column("split").to_pylist()
    pairs = [(row.column("id")[0].as_py(), row.column("tokens")[0].as_py()) for row in rows]
    assert [name for name, _ in pairs] == index.ids.tolist()
    return [(name, split, tokens) for (name, tokens), split in zip(pairs, splits, strict=True)]


def test_all_words_of_the_text_are_in_the_segments(corpus: Corpus, text: Path, tiny_whisper_dir: Path) -> None:
    lines = (text / "a.txt").read_text().splitlines()
    lines += lzma.decompress((text / "b.txt.xz").read_bytes()).decode().splitlines()
    words = " ".join(dict.fromkeys(lines)).split()
    encoder = LabelEncoder(str(tiny_whisper_dir))
    segments = [words[start : start + 15] for start in range(0, len(words), 15)]
    expected = sorted(encoder.encode(" ".join(segment), "cs") for segment in segments if len(segment) >= 5)
    found = content(corpus)
    assert sorted(tokens for _, _, tokens in found) == expected
    assert corpus.index("all").n_tokens.tolist() == [len(tokens) for _, _, tokens in found]

    summary = corpus.summary
    assert summary["segments"] == len(found)
    assert summary["lines"] == {
        "read": N_LINES,
        "kept": len(set(lines)),
        "duplicate": N_LINES - len(set(lines)),
        "short": 0,
    }
    assert summary["bytes"] == sum(len(line.encode()) for line in set(lines))
    assert gzip.decompress(Path(corpus.path, "words.txt.gz").read_bytes()).decode().split() == sorted(set(words))
    assert summary["splits"]["train"]["tokens"] == int(corpus.index("train").n_tokens.sum())


def test_dev_is_cut_by_the_hash_of_the_segment(corpus: Corpus, text: Path, tmp_path: Path, tiny_whisper_dir: Path) -> None:
    assert corpus.splits == ["train", "dev"]
    dev, everything = set(corpus.index("dev").ids), corpus.index("all").ids
    assert dev == {name for name in everything if int(name, 16) / 2**64 < 0.05}
    assert 0.02 < len(dev) / len(everything) < 0.09
    few = prepare_text(config_for(text, tmp_path, max_validation_segments=7), str(tiny_whisper_dir))
    assert sorted(few.index("dev").ids) == sorted(dev)[:7]
    assert len(few.index("train")) == len(everything) - 7
    none = prepare_text(config_for(text, tmp_path, validation_share=0), str(tiny_whisper_dir))
    assert none.splits == ["train"]


def test_a_text_is_prepared_once_and_always_the_same(
    corpus: Corpus, text: Path, tmp_path: Path, tiny_whisper_dir: Path
) -> None:
    calls: list[tuple[int, int]] = []
    config = config_for(text, tmp_path, shard_segments=70)
    other = prepare_text(config, str(tiny_whisper_dir), progress=lambda *counts: calls.append(counts))
    assert other.key == corpus.key
    assert content(other) == content(corpus)
    for of, size in ((corpus, 300), (other, 70)):  # shards are made while the text is read, each by a task
        assert len(of.index("all").shard_names) == -(-of.summary["segments"] // size)
    assert len(calls) > 10
    assert calls[-1] == (other.summary["segments"], 0)
    assert sorted(calls) == calls
    calls.clear()
    assert prepare_text(config, str(tiny_whisper_dir), progress=lambda *counts: calls.append(counts)) == other
    assert calls == []
    changed: list[dict[str, Any]] = [{"words_per_segment": 14}, {"max_bytes": 9000}, {"language": "sk"}, {"deduplicate": False}]
    keys = {prepare_text(config_for(text, tmp_path, **values), str(tiny_whisper_dir)).key for values in changed}
    assert len(keys - {corpus.key}) == 4


def test_repeated_segments_are_kept_once(tmp_path: Path, tiny_whisper_dir: Path, ray_local: None) -> None:
    lines = ["jedna dvě tři čtyři pět"] * 10 + ["šest sedm osm devět deset"]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    config = config_for(tmp_path / "a.txt", tmp_path / "cache", deduplicate=False, words_per_segment=5)
    corpus = prepare_text(config, str(tiny_whisper_dir))
    assert (corpus.summary["segments"], corpus.summary["duplicate_segments"]) == (2, 9)
    assert corpus.splits == ["train", "dev"]


def readings(corpus: Corpus, order: EpochOrder, world: int, micro_batches: int = 1) -> list[Reading]:
    return [text_reading(corpus, "train", order, rank, world, micro_batches, MASK_SHARE, SEED) for rank in range(world)]


@pytest.fixture(scope="module")
def order(corpus: Corpus) -> EpochOrder:
    index = corpus.index("train")
    return EpochOrder(index, SEED, 64, loss_tokens=masked_counts(index.n_tokens, MASK_SHARE))


def segments_of(steps: list[StepBatches]) -> dict[tuple[int, str], tuple[list[int], list[int]]]:
    """(step, id) -> the tokens and the masked positions of a segment, as a batch has them."""
    found = {}
    for batches in steps:
        for batch in batches.micro:
            inside_BT = torch.arange(batch.tokens_BT.shape[1]) < batch.lengths_B[:, None]
            assert not (batch.masked_BT & ~inside_BT).any()
            for number, name in enumerate(batch.ids):
                length = int(batch.lengths_B[number])
                tokens, masked = batch.tokens_BT[number, :length], batch.masked_BT[number]
                found[batches.step, name] = tokens.tolist(), masked.nonzero().flatten().tolist()
    return found


def test_any_number_of_workers_sees_the_same_masked_segments(corpus: Corpus, order: EpochOrder) -> None:
    steps = range(order.steps_per_epoch)
    (one,) = (segments_of(list(local_steps(reading, steps))) for reading in readings(corpus, order, 1))
    two = [segments_of(list(local_steps(reading, steps))) for reading in readings(corpus, order, 2, micro_batches=2)]
    assert {**two[0], **two[1]} == one
    assert sorted(name for _, name in one) == corpus.index("train").ids.tolist()
    tokens = {name: tokens for name, _, tokens in content(corpus)}
    masked = np.zeros(len(steps), int)
    for (step, name), (found, positions) in one.items():
        assert found == tokens[name]
        assert len(positions) == max(1, round(MASK_SHARE * len(found)))
        masked[step] += len(positions)
    assert masked.tolist() == [order.global_tokens(step) for step in steps]


def test_a_later_epoch_masks_other_positions(corpus: Corpus, order: EpochOrder) -> None:
    (reading,) = readings(corpus, order, 1)
    epochs = [
        {name: masked for (_, name), (_, masked) in segments_of(list(local_steps(reading, steps))).items()}
        for steps in (range(order.steps_per_epoch), range(order.steps_per_epoch, 2 * order.steps_per_epoch))
    ]
    assert epochs[0].keys() == epochs[1].keys()
    assert sum(epochs[0][name] == epochs[1][name] for name in epochs[0]) < 0.2 * len(epochs[0])


def test_the_stream_gives_the_same_batches_and_resumes(
    corpus: Corpus, order: EpochOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raykd.data.stream._TASK_BYTES", 40_000)
    (reading,) = readings(corpus, order, 1)
    local = list(local_steps(reading, range(2 * order.steps_per_epoch)))
    for steps in (range(2 * order.steps_per_epoch), range(7, 2 * order.steps_per_epoch)):
        streamed = list(stream_steps(reading, steps))
        assert [batches.step for batches in streamed] == list(steps)
        for one, other in zip(streamed, local[steps.start :], strict=True):
            assert (one.epoch, one.global_tokens, one.global_utterances) == (
                other.epoch,
                other.global_tokens,
                other.global_utterances,
            )
            for batch, twin in zip(one.micro, other.micro, strict=True):
                assert batch.ids == twin.ids
                assert torch.equal(batch.tokens_BT, twin.tokens_BT)
                assert torch.equal(batch.masked_BT, twin.masked_BT)


def test_a_worker_without_segments_gets_a_placeholder(corpus: Corpus) -> None:
    index = corpus.index("train")
    order = EpochOrder(index, SEED, 3, loss_tokens=masked_counts(index.n_tokens, None))
    reading = text_reading(corpus, "train", order, 3, 4, 1, None, SEED)
    (batch,) = next(local_steps(reading, range(1))).micro
    assert batch.ids == []
    assert len(batch.tokens_BT) == 1
    assert not batch.masked_BT.any()


def test_too_many_bad_lines_are_refused_with_their_reasons(tmp_path: Path, tiny_whisper_dir: Path, ray_local: None) -> None:
    good = "\n".join(f"pět slov na řádce {number}" for number in range(16)).encode()
    (tmp_path / "a.txt").write_bytes(good + b"\n\xff\xfe\n\xff\n\0\0\n")
    config = config_for(tmp_path / "a.txt", tmp_path / "cache", min_words=4)
    for _ in range(2):
        with pytest.raises(
            UserError,
            match=r"^text\.source: 3 of 19 lines cannot be used, more than text\.max_reject_share=0\.05 allows: "
            r"not UTF-8 text \(2\), NUL characters \(1\); see .*rejects\.parquet, mend them or the text section",
        ):
            prepare_text(config, str(tiny_whisper_dir))
    (folder,) = (tmp_path / "cache" / "corpora").iterdir()
    assert open_corpus(str(folder)) is None
    corpus = prepare_text(config.model_copy(update={"max_reject_share": 0.2}), str(tiny_whisper_dir))
    assert corpus.summary["rejected"] == 3
    assert [row["id"].rpartition(":")[2] for row in corpus.rejects().to_pylist()] == ["17", "18", "19"]
    with pytest.raises(UserError, match="3 of 19 lines"):
        prepare_text(config, str(tiny_whisper_dir))


def test_texts_that_give_nothing_are_named(tmp_path: Path, tiny_whisper_dir: Path, ray_local: None) -> None:
    (tmp_path / "short.txt").write_text("jen tři slova\n")
    cut = lzma.compress("\n".join(str(random.random()) for _ in range(50_000)).encode())
    (tmp_path / "cut.txt.xz").write_bytes(cut[: len(cut) // 2])
    tokenizer = str(tiny_whisper_dir)
    with pytest.raises(UserError, match=r"^text\.source: nothing is left of .*short\.txt: of 1 lines 1 have fewer than"):
        prepare_text(config_for(tmp_path / "short.txt", tmp_path / "cache"), tokenizer)
    with pytest.raises(UserError, match=r"^/.*cut\.txt\.xz: cannot be unpacked to its end \(it breaks off\)"):
        prepare_text(config_for(tmp_path / "cut.txt.xz", tmp_path / "cache"), tokenizer)
    with pytest.raises(UserError, match=r"^text\.language: `klingon` is no language that Whisper knows"):
        prepare_text(config_for(tmp_path, tmp_path / "cache", language="klingon"), tokenizer)


def test_a_shard_that_cannot_be_written_is_one_line(
    text: Path, tmp_path: Path, tiny_whisper_dir: Path, ray_local: None
) -> None:
    config = config_for(text, tmp_path)
    folder = Path(prepare_text(config, str(tiny_whisper_dir)).path)
    (folder / "corpus.json").unlink()
    for shard in folder.glob("shard-*"):
        shard.unlink()
        shard.mkdir()
    with pytest.raises(UserError, match=r"^text\.cache_dir: .*shard-.* cannot be written \(Is a directory\); make room or"):
        prepare_text(config, str(tiny_whisper_dir))


def test_demo_text_becomes_a_corpus(tmp_path: Path, tiny_whisper_dir: Path, ray_local: None) -> None:
    config = config_for(tmp_path, tmp_path / "cache", source={"kind": "demo", "sentences": 500})
    corpus = prepare_text(config, str(tiny_whisper_dir))
    lines = corpus.summary["lines"]
    assert lines["kept"] + lines["short"] == lines["read"] == 500
    assert corpus.summary["segments"] > 50
    assert json.loads(Path(corpus.path, "corpus.json").read_text()) == corpus.summary
