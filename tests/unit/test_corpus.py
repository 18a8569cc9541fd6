"""What becomes of rows: shards with random access, rejects with reasons, splits by id. Without Ray."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from raykd.config.data import DataConfig
from raykd.data.audio import decode_audio
from raykd.data.corpus import Corpus, open_corpus, read_utterances
from raykd.data.mel import log_mel
from raykd.data.shards import ShardMaker, text_fits
from raykd.data.splits import UNUSED_DEV, assign_splits, split_warnings
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from tests.corpora import clip, make_corpus, row, speech_format, table


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_whisper_dir: Path) -> Corpus:
    rows = [row(number) for number in range(20)] + [row(100, split="dev"), row(101, split="test_ood")]
    return make_corpus(tmp_path_factory.mktemp("corpus"), tiny_whisper_dir, rows)


def test_rows_are_found_by_position_in_any_order(corpus: Corpus, tiny_whisper_dir: Path) -> None:
    index = corpus.index("train")
    assert list(index.ids) == sorted(index.ids)
    assert len(index.shard_names) == 3
    encoder = LabelEncoder(str(tiny_whisper_dir))
    positions = np.array([17, 3, 3, 0])
    for position, utterance in zip(positions, read_utterances(corpus.path, index, positions), strict=True):
        source = row(int(utterance.id[-4:]))
        assert utterance.id == source["id"] == index.ids[position]
        assert utterance.text == source["text"].strip() == index.texts[position]
        assert utterance.tokens == encoder.encode(utterance.text, "cs")
        assert len(utterance.tokens) - 1 == index.n_tokens[position]
        np.testing.assert_array_equal(utterance.mel, log_mel(decode_audio(source["audio"]), 80, 500))
        assert utterance.mel.shape[1] == index.n_frames[position]
        assert utterance.duration_s == pytest.approx(index.duration_s[position])


def test_finished_corpus_is_opened_and_counted(corpus: Corpus) -> None:
    opened = open_corpus(corpus.path)
    assert opened == corpus
    assert corpus.splits == ["dev", "test_ood", "train"]
    assert corpus.summary["utterances"] == 22
    assert corpus.summary["splits"]["train"]["languages"]["cs"]["utterances"] == 20
    assert corpus.summary["hours"] == pytest.approx(sum(corpus.index("all").duration_s) / 3600, abs=1e-6)
    assert len(corpus.index("all")) == 22
    assert corpus.rejects().num_rows == 0
    with pytest.raises(UserError, match="no split 'eval'; it has dev, test_ood, train"):
        corpus.index("eval")


def test_a_folder_without_summary_is_no_corpus(tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "index.parquet").write_bytes((Path(corpus.path) / "index.parquet").read_bytes())
    assert open_corpus(str(tmp_path)) is None


def silence() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16_000), 16_000, format="FLAC")
    return buffer.getvalue()


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"problem": "no transcript", "text": None}, "no transcript"),
    ({"audio": b"not audio"}, "unreadable audio"),
    ({"audio": silence()}, "silent audio"),
    ({"audio": None, "path": "/nowhere/clip.wav"}, "missing audio file"),
    ({"audio": clip(0.05)}, "too short (under 0.1 s)"),
    ({"audio": clip(5.2)}, "too long (over 5 s)"),
    ({"text": " ... "}, "no letters or digits in the text"),
    ({"text": None}, "no letters or digits in the text"),
    ({"language": "xx"}, "unknown language"),
    ({"language": None}, "unknown language"),
    ({"audio": clip(4.5), "text": "číslo " * 29}, "too many label tokens"),
    ({"audio": clip(0.3), "text": "tato věta se do tří desetin sekundy nevejde"}, "text does not fit audio"),
]


def test_bad_rows_are_rejected_with_their_reason(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    rows = [row(number) for number in range(8)] + [row(50 + number, **values) for number, (values, _) in enumerate(BAD_ROWS)]
    corpus = make_corpus(tmp_path, tiny_whisper_dir, rows, max_reject_share=0.9)
    rejects = corpus.rejects().to_pylist()
    assert [(reject["id"], reject["reason"]) for reject in rejects] == [
        (f"utterance-{50 + number:04d}", reason) for number, (_, reason) in enumerate(BAD_ROWS)
    ]
    assert rejects[3]["path"] == "/nowhere/clip.wav"
    assert corpus.summary["rejected"] == len(BAD_ROWS)
    assert corpus.summary["rejects"]["unknown language"] == 2
    assert len(corpus.index("all")) == 8


def test_first_usable_row_of_an_id_is_kept(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    rows = [row(number) for number in range(8)]
    rows += [row(9, audio=b"broken"), row(9, text="první"), row(9, text="druhý"), row(0, text="jiný")]
    corpus = make_corpus(tmp_path, tiny_whisper_dir, rows, max_reject_share=0.9)
    index = corpus.index("all")
    texts = dict(zip(index.ids, index.texts, strict=True))
    assert texts["utterance-0009"] == "první"
    assert texts["utterance-0000"] == "slovo"
    assert corpus.summary["rejects"] == {"duplicate id": 2, "unreadable audio": 1}
    last = read_utterances(corpus.path, index, [len(index) - 1])[0]
    assert (last.id, last.text) == ("utterance-0009", "první")


def test_too_many_rejects_stop_with_the_commonest_reasons(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    rows = (
        [row(number) for number in range(5)] + [row(10 + number, audio=b"broken") for number in range(3)] + [row(20, text="?")]
    )
    with pytest.raises(UserError) as caught:
        make_corpus(tmp_path, tiny_whisper_dir, rows)
    message = str(caught.value)
    assert "4 of 9 rows cannot be used, more than data.max_reject_share=0.05 allows" in message
    assert "unreadable audio (3), no letters or digits in the text (1)" in message
    assert str(tmp_path / "rejects.parquet") in message
    assert "\n" not in message
    assert pq.read_table(tmp_path / "rejects.parquet").num_rows == 4
    assert open_corpus(str(tmp_path)) is None


def test_nothing_usable_stops_even_when_all_may_be_rejected(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    with pytest.raises(UserError, match="2 of 2 rows cannot be used, that is all of them: silent audio"):
        make_corpus(tmp_path, tiny_whisper_dir, [row(0, audio=silence()), row(1, audio=silence())], max_reject_share=1.0)


@pytest.mark.parametrize(
    ("characters", "duration_s", "fits"),
    [(2, 0.2, True), (3, 8.0, True), (1, 5.0, True), (500, 30.0, True), (1, 20.0, False), (60, 0.5, False), (700, 15.0, False)],
)
def test_text_that_cannot_have_been_spoken_does_not_fit(characters: int, duration_s: float, fits: bool) -> None:
    assert text_fits(characters, duration_s) is fits


def test_a_shard_is_named_by_its_rows(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    of_model = speech_format(tiny_whisper_dir)
    maker = ShardMaker(str(tmp_path), DataConfig(source="unused.jsonl"), of_model, LabelEncoder(of_model.tokenizer))
    rows = table([row(0), row(1)])
    assert maker.write_shard(rows).equals(maker.write_shard(rows))
    maker.write_shard(table([row(0), row(1, audio=clip(1.0, seed=5))]))
    names = sorted(file.name for file in tmp_path.iterdir())
    assert len(names) == 2
    assert all(name.endswith(".arrow") for name in names)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    of_model = speech_format(tiny_whisper_dir)
    (tmp_path / "file").write_text("in the way")
    maker = ShardMaker(str(tmp_path / "file"), DataConfig(source="unused.jsonl"), of_model, LabelEncoder(of_model.tokenizer))
    with pytest.raises(UserError, match=r"data\.cache_dir: .*file/shard-.* cannot be written"):
        maker.write_shard(table([row(0)]))


def splits_of(counts: dict[tuple[str, str | None], int], **config: Any) -> tuple[list[str], np.ndarray]:
    rows = [(language, split) for (language, split), count in counts.items() for _ in range(count)]
    ids = [f"id-{number}" for number in range(len(rows))]
    data = DataConfig.model_validate({"source": "unused.jsonl", **config})
    return ids, assign_splits(ids, [language for language, _ in rows], [split for _, split in rows], data)


def test_missing_dev_and_test_are_carved_from_train_by_hash() -> None:
    _, splits = splits_of({("cs", None): 4000})
    counts = {split: int((splits == split).sum()) for split in ("train", "dev", "test")}
    assert sum(counts.values()) == 4000
    assert 150 < counts["dev"] < 250
    assert 150 < counts["test"] < 250
    _, again = splits_of({("cs", None): 5000})
    assert (again[:4000] == splits).all()


def test_a_small_source_still_has_one_of_each() -> None:
    _, splits = splits_of({("cs", "train"): 3})
    assert sorted(splits) == ["dev", "test", "train"]
    _, splits = splits_of({("cs", "train"): 2})
    assert list(splits) == ["train", "train"]


def test_splits_of_the_source_are_kept_and_only_languages_without_are_carved() -> None:
    _, splits = splits_of({("cs", "train"): 500, ("cs", "dev"): 20, ("cs", "test_ood"): 20, ("uk", "train"): 500})
    assert (splits[:500] == "train").all()
    assert (splits[500:520] == "dev").all()
    assert (splits[520:540] == "test_ood").all()
    assert set(splits[540:]) == {"train", "dev", "test"}


def test_nothing_is_cut_into_a_split_that_the_source_has() -> None:
    _, splits = splits_of({("cs", "train"): 500, ("cs", "test"): 4}, test_splits=["other"])
    assert sorted(np.flatnonzero(splits == "test")) == list(range(500, 504))
    assert "test" not in splits_of({("cs", "train"): 500}, test_splits=["test_other"])[1]


def test_splits_that_are_for_nothing_and_names_without_rows_are_warned_of() -> None:
    data = DataConfig(source="unused.jsonl")
    assert split_warnings({"train": 9, "dev": 1, "test": 1, UNUSED_DEV: 3}, data) == []
    assert split_warnings({"all": 9}, data) == []
    (warning,) = split_warnings({"train": 9, "prueba": 4}, data)
    assert warning.startswith("split prueba (4 utterances) is neither trained nor scored on")
    (warning,) = split_warnings({"train": 9}, DataConfig(source="unused.jsonl", test_splits=["other"]))
    assert warning.startswith("data.test_splits names other, which has no utterances; there are train")


def test_dev_is_cut_to_its_cap() -> None:
    _, splits = splits_of({("cs", "train"): 100, ("cs", "dev"): 50, ("cs", "test"): 5}, max_dev_utterances=30)
    assert int((splits == "dev").sum()) == 30
    assert int((splits == UNUSED_DEV).sum()) == 20
    assert (splits[:100] == "train").all()
    _, carved = splits_of({("cs", "train"): 4000, ("cs", "test"): 5}, max_dev_utterances=30)
    assert int((carved == "dev").sum()) == 30
    assert int((carved == "train").sum()) == 3970


def test_summary_is_plain_json(corpus: Corpus) -> None:
    summary = json.loads((Path(corpus.path) / "corpus.json").read_text(encoding="utf-8"))
    assert summary == corpus.summary
    assert {"raykd", "numpy", "ray", "soundfile"} <= set(summary["versions"])


def test_shards_hold_one_utterance_a_record_batch(corpus: Corpus) -> None:
    index = corpus.index("all")
    rows = 0
    for name in index.shard_names:
        with pa.memory_map(str(Path(corpus.path) / name)) as source:
            reader = pa.ipc.open_file(source)
            rows += reader.num_record_batches
            assert all(reader.get_batch(number).num_rows == 1 for number in range(reader.num_record_batches))
    assert rows == len(index)
