"""Packing: no utterance lost or twice, order kept, and what is heard and read is that of the utterances one after the other."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raykd.config.data import PackConfig
from raykd.data.batches import IGNORED_LABEL, collate
from raykd.data.corpus import Index, Utterance, read_utterances
from raykd.data.format import SAMPLE_RATE
from raykd.data.mel import HOP, log_mel
from raykd.data.pack_corpus import _Packer
from raykd.data.packs import Pack, Room, joined, joined_mel, part_frames, plan_packs, reads_before
from raykd.data.text import LabelEncoder
from tests.corpora import clip, make_corpus, row

PREFIX = 4
ROOM = Room(frames=3000, tokens=448, prompt=224)


def index_of(draws: np.random.Generator, count: int, recordings: int, with_starts: bool) -> Index:
    durations = draws.integers(1_600, 30 * SAMPLE_RATE // 3, count) / SAMPLE_RATE
    recording = [None if one == 0 else f"r{one}" for one in draws.integers(0, recordings, count)]
    return Index(
        pa.table(
            {
                "id": [f"u{number:05d}" for number in range(count)],
                "language": draws.choice(["cs", "pl"], count).tolist(),
                "recording": pa.array(recording, pa.string()),
                "start_s": pa.array(draws.permutation(count).astype(float) if with_starts else [None] * count, pa.float64()),
                "duration_s": durations,
                "n_tokens": pa.array(draws.integers(PREFIX + 1, 90, count), pa.int32()),
            }
        )
    )


@pytest.mark.parametrize("seed", range(12))
def test_every_utterance_is_in_one_pack_and_recordings_keep_their_order(seed: int) -> None:
    draws = np.random.default_rng(seed)
    index = index_of(draws, int(draws.integers(1, 400)), int(draws.integers(1, 30)), bool(seed % 2))
    packs = plan_packs(index, ROOM, PREFIX)
    together = [position for pack in packs for position in pack.positions]
    assert sorted(together) == list(range(len(index)))
    frames, key = part_frames(index.duration_s), (lambda at: (index.start_s[at], index.ids[at]))
    for pack in packs:
        assert len({index.languages[at] for at in pack.positions}) == 1
        assert frames[pack.positions].sum() <= ROOM.frames
        assert (index.n_tokens[pack.positions] - PREFIX + 2).sum() + PREFIX + 1 <= ROOM.tokens
        for recording in set(index.recordings[pack.positions]) - {None}:
            members = [at for at in pack.positions if index.recordings[at] == recording]
            assert members == sorted(members, key=key)
            # Neighbours: nothing of the recording that lies between two of them is in another pack.
            whole = sorted((at for at in range(len(index)) if index.recordings[at] == recording), key=key)
            whole = [at for at in whole if index.languages[at] == index.languages[members[0]]]
            assert whole[whole.index(members[0]) : whole.index(members[-1]) + 1] == members
            if pack.before and recording == index.recordings[pack.positions[0]]:
                assert pack.before == whole[: whole.index(members[0])][-ROOM.prompt :]


def test_remains_of_recordings_are_put_together() -> None:
    index = index_of(np.random.default_rng(3), 300, 250, True)
    packs = plan_packs(index, ROOM, PREFIX)
    seconds = [index.duration_s[pack.positions].sum() for pack in packs]
    assert np.mean(seconds) > 20


def test_a_pack_sounds_like_its_utterances_one_after_the_other() -> None:
    draws = np.random.default_rng(0)
    parts = [
        draws.normal(0, level, length).astype(np.float32) for level, length in ((0.2, 16_000), (0.001, 20_123), (0.05, 9_001))
    ]
    frames = part_frames(np.array([len(part) / SAMPLE_RATE for part in parts]))
    assert all(frames % 2 == 0)
    mels = [log_mel(part, 80, 3000) for part in parts]
    got = joined_mel(mels, frames, 3000)
    padded = [np.pad(part, (0, int(length) * HOP - len(part))) for part, length in zip(parts[:-1], frames[:-1], strict=True)]
    wanted = log_mel(np.concatenate([*padded, parts[-1]]), 80, 3000)
    assert got.shape == wanted.shape
    borders = np.cumsum(frames[:-1])
    inner = np.ones(wanted.shape[1], bool)
    for border in borders:
        inner[border - 2 : border + 2] = False
    np.testing.assert_allclose(got[:, inner].astype(np.float32), wanted[:, inner].astype(np.float32), atol=2e-3)


@pytest.fixture
def encoder(tiny_whisper_dir: Path) -> LabelEncoder:
    return LabelEncoder(str(tiny_whisper_dir))


def spoken(encoder: LabelEncoder, number: int, text: str, seconds: float) -> Utterance:
    samples = np.random.default_rng(number).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
    return Utterance(
        f"u{number}", "cs", text, len(samples) / SAMPLE_RATE, log_mel(samples, 80, 500), encoder.encode(text, "cs")
    )


def test_labels_of_a_pack(encoder: LabelEncoder) -> None:
    parts = [spoken(encoder, 0, "dobrý den", 1.005), spoken(encoder, 1, "jak se máte", 0.7)]
    before = [spoken(encoder, 2, "nejdřív tohle", 0.5)]
    room, zero = Room(500, 64, 32), encoder.timestamp_id
    first, second, said = (one.tokens[PREFIX:-1] for one in (*parts, *before))
    # 1.005 s reach 101 frames, which are 51 time steps; 0.7 s are 35.
    timed = joined(parts, [], room, encoder, PackConfig(timestamps=1.0))
    assert timed.tokens == [*encoder.prefix("cs", True), zero, *first, zero + 51, zero + 51, *second, zero + 86, encoder.eot_id]
    plain = joined(parts, before, room, encoder, PackConfig(timestamps=0.0))
    assert plain.tokens == [encoder.previous_id, *said, *encoder.prefix("cs"), *first, *second, encoder.eot_id]
    assert plain.n_prompt == 1 + len(said)
    assert encoder.decode(plain.tokens[plain.n_prompt :]) == plain.text == "dobrý den jak se máte"
    # A prompt carries no loss, and the first label is what follows the start of the transcript.
    batch = collate([plain, parts[0]], 500, encoder.pad_id)
    assert batch.labels_BU[0, : plain.n_prompt].eq(IGNORED_LABEL).all()
    assert batch.labels_BU[0, plain.n_prompt].item() == encoder.prefix("cs")[1]
    assert batch.decoder_input_BU[0].tolist() == plain.tokens[:-1]
    assert batch.n_valid() == len(plain.tokens) - 1 - plain.n_prompt + len(parts[0].tokens) - 1


def test_a_prompt_is_cut_at_its_begin_and_never_takes_the_labels_room(encoder: LabelEncoder) -> None:
    part, before = spoken(encoder, 0, "a b c", 0.5), [spoken(encoder, number, "d e f g h", 0.5) for number in range(1, 9)]
    said = [token for one in before for token in one.tokens[PREFIX:-1]]
    for room in (Room(500, 448, 8), Room(500, len(part.tokens) + 5, 32), Room(500, len(part.tokens), 32)):
        made = joined([part], before, room, encoder, PackConfig(timestamps=0.0))
        space = min(room.prompt, room.tokens - len(part.tokens))
        assert made.tokens[made.n_prompt :] == part.tokens
        assert made.tokens[: made.n_prompt] == ([encoder.previous_id, *said[1 - space :]] if space > 1 else [])


def test_draws_follow_from_the_pack_and_have_their_share() -> None:
    names = [f"pack-{number}" for number in range(4000)]
    for share in (0.0, 0.2, 1.0):
        assert np.mean([reads_before(name, PackConfig(previous_text=share)) for name in names]) == pytest.approx(
            share, abs=0.03
        )


def test_a_packed_corpus_is_that_of_its_packs(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    rows = [row(number, recording=f"r{number % 3}", audio=clip(0.5 + 0.1 * (number % 7), seed=number)) for number in range(30)]
    rows[7]["split"] = "test"
    (tmp_path / "corpus").mkdir()
    corpus = make_corpus(tmp_path / "corpus", tiny_whisper_dir, rows, dev_share=0.0)
    (tmp_path / "packed").mkdir()
    config: dict[str, Any] = {"timestamps": 0.5, "previous_text": 0.5}
    room, encoder = Room(500, 64, 32), LabelEncoder(str(tiny_whisper_dir))
    packer = _Packer(str(tmp_path / "packed"), corpus.path, room, encoder, PackConfig(**config))
    shards = list(packer.shards(corpus))
    outcomes = [one for shard in shards for one in packer.write(shard)]
    index = corpus.index("train")
    at = {name: position for position, name in enumerate(index.ids)}
    assert sorted(name for one in outcomes if one["split"] == "train" for name in one["utterances"]) == sorted(index.ids)
    assert [one["id"] for one in outcomes if one["split"] == "test"] == ["utterance-0007"]
    table = Index(pa.Table.from_pylist(outcomes))
    packs = {tuple(pack.positions): pack for pack in plan_packs(index, room, PREFIX)}
    for number, got in enumerate(read_utterances(packer.path, table, range(len(outcomes)))):
        assert (got.id, got.text, got.duration_s) == tuple(outcomes[number][key] for key in ("id", "text", "duration_s"))
        assert len(got.tokens) - 1 - got.n_prompt == outcomes[number]["n_tokens"]
        assert outcomes[number]["n_utterances"] == len(outcomes[number]["utterances"])
        if outcomes[number]["split"] != "train":
            continue
        positions = [at[name] for name in outcomes[number]["utterances"]]
        pack: Pack = packs[tuple(positions)]
        prompted = reads_before(got.id, packer.config)
        before = read_utterances(corpus.path, index, pack.before) if prompted else []
        wanted = joined(read_utterances(corpus.path, index, positions), before, room, encoder, packer.config)
        assert got.tokens == wanted.tokens
        assert np.array_equal(got.mel, wanted.mel)
    assert any(one["n_frames"] > 300 for one in outcomes)
