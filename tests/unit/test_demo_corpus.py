import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from raykd.cli import run_command
from raykd.config.data import DataConfig, DemoSource
from raykd.data.demo import demo_corpus_dir, ensure_demo_corpus, write_demo_corpus
from raykd.data.demo.corpus import Shard, make_utterance, plan_shards, shard_table
from raykd.data.demo.speech import UNSEEN_VARIANTS, VARIANTS
from raykd.data.sources import source_parts
from raykd.data.utterances import tables
from raykd.demo_data import main
from raykd.errors import UserError

pytestmark = pytest.mark.slow

TINY = DemoSource(languages=("cs", "hu"), hours=0.004)  # 14 s a split


def rows_of(folder: str | Path) -> list[dict]:
    return [row for file in sorted(Path(folder).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ensure_demo_corpus(TINY, str(tmp_path_factory.mktemp("cache")))


def test_hours_are_of_train_and_the_other_splits_are_small() -> None:
    def seconds(hours: float, *languages: str) -> dict[str, float]:
        shards = plan_shards(DemoSource(languages=languages, hours=hours))
        return {split: sum(s.seconds for s in shards if s.split == split) for split in ("train", "dev", "test", "test_ood")}

    assert seconds(1, "cs") == pytest.approx({"train": 3600, "dev": 250, "test": 250, "test_ood": 250})
    assert seconds(2, "cs")["test"] == pytest.approx(360)
    assert seconds(100, "cs", "pl")["test"] == pytest.approx(1200)
    assert seconds(1, "cs", "pl", "uk", "hu", "ca", "en")["test"] == pytest.approx(360)
    assert seconds(0.01, "cs")["test"] == pytest.approx(36)


def test_rows_are_speech_of_their_text(tiny: str) -> None:
    rows = rows_of(tiny)
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["split"] for row in rows} == {"train", "dev", "test", "test_ood"}
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]))
        assert rate == 16_000
        assert samples.ndim == 1
        assert len(samples) / rate == row["duration_s"]
        assert 0.2 < np.abs(samples).max() <= 1
        assert 4 < len(row["text"]) / row["duration_s"] < 30  # characters a second
    train_s = sum(row["duration_s"] for row in rows if row["split"] == "train")
    assert 14.4 <= train_s < 14.4 + 6


def test_unseen_speech_has_kinds_and_voices_of_its_own(tiny: str) -> None:
    for row in rows_of(tiny):
        unseen = row["split"] == "test_ood"
        assert (row["kind"] in {"question", "measure"}) == unseen
        language, _, variant = row["voice"].partition("+")
        assert language == row["language"]
        assert variant in (UNSEEN_VARIANTS if unseen else VARIANTS)
        samples, _ = soundfile.read(io.BytesIO(row["audio"]))
        assert samples[:100].any() == unseen  # noise even where nobody speaks


def test_sources_read_the_demo_corpus(tiny: str) -> None:
    config = DataConfig(source=(TINY,), cache_dir=str(Path(tiny).parents[1]))
    written = [table for part in source_parts(TINY, config) for table in tables(part.rows())]
    read = {row["id"]: row for table in written for row in table.to_pylist()}
    assert len(read) == len(rows_of(tiny))
    for row in rows_of(tiny):
        assert {key: read[row["id"]][key] for key in ("audio", "text", "language", "duration_s", "split")} == {
            key: row[key] for key in ("audio", "text", "language", "duration_s", "split")
        }
        assert read[row["id"]]["problem"] is None


def test_a_shard_is_a_pure_function_and_the_seed_matters() -> None:
    shard = Shard("dev", 1, 3, 12.0)
    table = shard_table(TINY, shard)
    assert table.equals(shard_table(TINY, shard))
    other = shard_table(TINY.model_copy(update={"seed": 1}), shard)
    assert not set(table["text"].to_pylist()) & set(other["text"].to_pylist())


def test_an_utterance_does_not_depend_on_the_size_of_the_corpus(tiny: str) -> None:
    for row in rows_of(tiny)[:4]:
        assert make_utterance(0, row["split"], row["language"], row["kind"], int(row["id"].rsplit("-")[-1])) == row


def test_no_sentence_is_in_two_splits_and_shards_share_nothing() -> None:
    source = DemoSource(languages=("en",), kinds=("name",), hours=1)
    texts: dict[str, list[str]] = {}
    for split in ("train", "dev", "test"):
        for number in (0, 1):
            texts.setdefault(split, []).extend(shard_table(source, Shard(split, number, 2, 100.0))["text"].to_pylist())
    everything = [text for split in texts.values() for text in split]
    assert len(everything) > 200
    assert len(set(everything)) == len(everything)


def test_small_corpora_have_all_languages_and_kinds() -> None:
    source = DemoSource(languages=("cs", "uk"), kinds=("time", "price"), hours=1)
    rows = shard_table(source, Shard("train", 0, 12, 20.0)).to_pylist()
    pairs = [(row["language"], row["kind"]) for row in rows]
    assert set(pairs[:4]) == {("cs", "time"), ("uk", "time"), ("cs", "price"), ("uk", "price")}


def test_a_complete_corpus_is_kept_and_a_half_written_one_made_again(tiny: str, tmp_path: Path) -> None:
    folder = Path(ensure_demo_corpus(TINY, str(tmp_path)))
    assert folder.name == Path(tiny).name
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert files == {file.name: file.read_bytes() for file in Path(tiny).iterdir()}

    shard = next(folder.glob("train-*"))
    shard.write_bytes(b"mine")
    ensure_demo_corpus(TINY, str(tmp_path))
    assert shard.read_bytes() == b"mine"
    (folder / "demo.json").unlink()
    ensure_demo_corpus(TINY, str(tmp_path))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files


def test_each_setting_has_its_folder() -> None:
    sources = [TINY, TINY.model_copy(update={"seed": 1}), TINY.model_copy(update={"kinds": ("time",)})]
    assert len({demo_corpus_dir(source, "cache") for source in sources}) == 3
    assert demo_corpus_dir(TINY, "s3://bucket/cache").startswith("s3://bucket/cache/demo/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--languages", "cs,xx"], "data.source.languages: demo speech has no xx; choose from ca, cs, en, hu, pl, uk"),
        (["--kinds", "question"], "data.source.kinds: demo speech has no question; choose from number, time"),
        (["--hours", "0"], "hours: "),
        (["--hours", "inf"], "hours: "),
        (["--languages", ""], "languages: "),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run_command(main, [str(tmp_path / "out"), *arguments])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="other settings"):
        write_demo_corpus(TINY.model_copy(update={"seed": 5}), tiny)
    (tmp_path / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds mine\.parquet"):
        write_demo_corpus(TINY, str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.parquet"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/out: cannot be written"):
        write_demo_corpus(TINY, str(tmp_path / "file" / "out"))


def test_the_command_writes_a_corpus_and_says_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "out"), "--languages", "ca", "--hours", "0.002", "--seed", "3", "--kinds", "time, price"])
    rows = rows_of(tmp_path / "out")
    assert {row["kind"] for row in rows if row["split"] == "train"} <= {"time", "price"}
    assert {row["language"] for row in rows} == {"ca"}
    printed = capsys.readouterr().out
    n_train = sum(row["split"] == "train" for row in rows)
    assert [line.split()[:2] for line in printed.splitlines() if line.startswith("train")] == [["train", str(n_train)]]
    assert json.loads((tmp_path / "out" / "demo.json").read_text())["settings"]["source"]["seed"] == 3
