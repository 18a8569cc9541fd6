"""Sources become a corpus once, the same one every time, and never half of one."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raykd.config.data import DataConfig
from raykd.data.corpus import Corpus, open_corpus, read_utterances
from raykd.data.format import SpeechFormat
from raykd.data.prepare import prepare_corpus
from raykd.errors import UserError
from tests.corpora import clip


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A manifest of 30 recordings, one of which is broken and one missing."""
    rows = []
    for number in range(30):
        name = f"{number:02d}.flac"
        if number != 7:
            (tmp_path / name).write_bytes(b"broken" if number == 3 else clip(0.5 + number / 20, seed=number))
        rows.append({"id": f"u{29 - number:02d}", "audio": name, "text": f"slovo {number}", "language": "cs", "split": "train"})
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def config_for(manifest: Path, **values: object) -> DataConfig:
    usual = {
        "source": str(manifest),
        "cache_dir": str(manifest.parent / "cache"),
        "shard_utterances": 8,
        "max_reject_share": 0.1,
    }
    return DataConfig.model_validate(usual | values)


def content(corpus: Corpus) -> list[tuple]:
    """The corpus without where in the shards its rows lie."""
    index = corpus.index("all")
    utterances = read_utterances(corpus.path, index, range(len(index)))
    splits = index.table.column("split").to_pylist()
    return [
        (utterance.id, split, utterance.text, utterance.tokens, utterance.mel.tobytes())
        for utterance, split in zip(utterances, splits, strict=True)
    ]


def test_a_corpus_is_prepared_once_and_then_found(speech: Path, tiny_format: SpeechFormat, ray_local: None) -> None:
    calls: list[tuple[int, int]] = []
    corpus = prepare_corpus(config_for(speech), tiny_format, lambda *counts: calls.append(counts))
    assert calls[-1] == (30, 2)
    assert calls == sorted(calls)
    assert corpus.summary["utterances"] == 28
    assert corpus.summary["rejects"] == {"missing audio file": 1, "unreadable audio": 1}
    assert {reject["id"] for reject in corpus.rejects().to_pylist()} == {"u26", "u22"}
    assert set(corpus.splits) == {"train", "dev", "test"}
    assert len(corpus.index("all").shard_names) > 1

    calls.clear()
    again = prepare_corpus(config_for(speech), tiny_format, lambda *counts: calls.append(counts))
    assert again == corpus
    assert calls == []
    with pytest.raises(UserError, match=r"2 of 30 rows cannot be used, more than data\.max_reject_share=0\.01"):
        prepare_corpus(config_for(speech, max_reject_share=0.01), tiny_format)


def test_two_preparations_give_the_same_corpus(speech: Path, tiny_format: SpeechFormat, ray_local: None) -> None:
    first = prepare_corpus(config_for(speech), tiny_format)
    second = prepare_corpus(config_for(speech, cache_dir=str(speech.parent / "other"), shard_utterances=5), tiny_format)
    assert first.path != second.path
    assert first.key == second.key
    assert content(first) == content(second)
    assert first.rejects().equals(second.rejects())


def test_two_runs_may_prepare_the_same_corpus_at_once(speech: Path, tiny_format: SpeechFormat, ray_local: None) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: prepare_corpus(config_for(speech), tiny_format), range(2))
    assert one.path == other.path
    assert len(content(one)) == 28
    assert not [name for name in os.listdir(one.path) if "partial" in name]


def test_changed_data_filters_or_model_input_make_another_corpus(
    speech: Path, tiny_format: SpeechFormat, ray_local: None
) -> None:
    keys = {prepare_corpus(config_for(speech), tiny_format).key}
    keys.add(prepare_corpus(config_for(speech, max_duration_s=1.5, max_reject_share=1), tiny_format).key)
    wide = SpeechFormat(128, tiny_format.window_frames, tiny_format.max_label_tokens, tiny_format.tokenizer)
    keys.add(prepare_corpus(config_for(speech), wide).key)
    lines = speech.read_text().splitlines(keepends=True)
    speech.write_text("".join(lines[:-1]))
    keys.add(prepare_corpus(config_for(speech), tiny_format).key)
    assert len(keys) == 4


def test_too_many_rejects_leave_their_list_and_no_corpus(speech: Path, tiny_format: SpeechFormat, ray_local: None) -> None:
    config = config_for(speech, max_reject_share=0.01)
    for _ in range(2):
        with pytest.raises(UserError, match=r"data\.source: 2 of 30 rows .*missing audio file \(1\), unreadable audio \(1\)"):
            prepare_corpus(config, tiny_format)
    (folder,) = (speech.parent / "cache" / "corpora").iterdir()
    assert (folder / "rejects.parquet").exists()
    assert not (folder / "corpus.json").exists()


def test_an_interrupted_preparation_leaves_no_corpus_and_does_no_harm(
    speech: Path, tiny_format: SpeechFormat, ray_local: None
) -> None:
    def interrupt(done: int, rejected: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(config_for(speech), tiny_format, interrupt)
    (folder,) = (speech.parent / "cache" / "corpora").iterdir()
    assert open_corpus(str(folder)) is None
    whole = prepare_corpus(config_for(speech, cache_dir=str(speech.parent / "other")), tiny_format)
    assert content(prepare_corpus(config_for(speech), tiny_format)) == content(whole)


def test_a_shard_that_cannot_be_written_is_one_line_from_the_driver(
    speech: Path, tiny_format: SpeechFormat, ray_local: None
) -> None:
    folder = Path(prepare_corpus(config_for(speech), tiny_format).path)
    (folder / "corpus.json").unlink()
    for shard in folder.glob("shard-*"):
        shard.unlink()
        shard.mkdir()
    with pytest.raises(
        UserError, match=r"^data\.cache_dir: .*shard-.* cannot be written \(Is a directory\); make room or .*folder$"
    ):
        prepare_corpus(config_for(speech), tiny_format)
