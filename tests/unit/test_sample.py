"""`--check`: a sample of the data is looked at without Ray, and what is wrong with it ends with what to mend."""

import json
import re
from pathlib import Path

import pytest

from raykd import evaluate, label, train_mlm
from raykd.config import load_config
from raykd.config.data import DataConfig
from raykd.config.text import TextConfig
from raykd.data.sample import look_at_speech, look_at_text
from raykd.errors import UserError
from raykd.models.whisper import speech_format
from raykd.preflight import look_at_run
from tests.ray.conftest import write_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 600 rows in the order of their splits."""
    return write_manifest(tmp_path_factory.mktemp("spoken"), 400, 100, 100)


def data(path: Path, cache: Path, **more: object) -> DataConfig:
    return DataConfig.model_validate({"source": str(path), "cache_dir": str(cache), **more})


def test_all_places_of_a_source_are_sampled(spoken: Path, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    said = "\n".join(look_at_speech(data(spoken, tmp_path / "cache"), speech_format(str(tiny_whisper_dir))))
    rows, parts = map(int, re.search(r"sample   (\d+) rows, from (\d+) of \d+ parts", said).groups())  # type: ignore[union-attr]
    assert 200 <= rows < 300
    assert parts > 1
    assert "audio from audio, text from text" in said
    assert "split    train: " in said
    assert "same recording as in another split" not in said
    assert not (tmp_path / "cache").exists()


def test_one_row_in_a_hundred_may_be_bad_and_is_shown(spoken: Path, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    rows = spoken.read_text().splitlines()[370:430]
    (tmp_path / "cut.flac").write_bytes((spoken.parent / "train-000.flac").read_bytes()[:900])
    bad = {"audio": str(tmp_path / "cut.flac"), "text": "jedna", "language": "cs", "split": "train", "id": "the-\x1b[2Jcut-one"}
    path = spoken.parent / "with_one_bad.jsonl"
    path.write_text("\n".join([*rows, json.dumps(bad)]) + "\n")
    wanted = speech_format(str(tiny_whisper_dir))
    said = look_at_speech(data(path, tmp_path, max_reject_share=0.1), wanted)
    assert any(re.match(r"  reject   unreadable audio: 1 rows", line) for line in said), said
    assert any(line.startswith(r"  rejected the-\x1b[2Jcut-one: unreadable audio") for line in said), said
    with pytest.raises(UserError, match=r"data\.source: 1 of 61 rows of a sample cannot be used, .*: unreadable audio \(1\)"):
        look_at_speech(data(path, tmp_path, max_reject_share=0.01), wanted)


def test_speech_that_is_to_be_labelled_needs_no_transcripts(spoken: Path, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    rows = [json.loads(row) for row in spoken.read_text().splitlines()[:20]]
    path = spoken.parent / "unlabelled.jsonl"
    path.write_text("".join(json.dumps({"audio": row["audio"], "language": "cs"}) + "\n" for row in rows))
    wanted = speech_format(str(tiny_whisper_dir))
    said = "\n".join(look_at_speech(data(path, tmp_path), wanted, needs_text=False))
    assert "sample   20 rows" in said
    assert "audio from audio" in said
    with pytest.raises(UserError, match="no transcript column"):
        look_at_speech(data(path, tmp_path), wanted)


def test_rows_that_sound_the_same_are_told(spoken: Path, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    row = json.loads(spoken.read_text().splitlines()[0])
    path = spoken.parent / "train_again.jsonl"
    rows = [row, {**row, "id": "again"}, {**row, "id": "other", "text": "dva tři čtyři"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = look_at_speech(data(path, tmp_path, dev_share=0), speech_format(str(tiny_whisper_dir)))
    warned = [line for line in said if line.startswith("  WARNING  1 of 3 utterances of train sound exactly like another one")]
    assert len(warned) == 2, said


def test_a_text_is_sampled(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {number} of a text that is long enough\n" for number in range(20_000)))
    config = TextConfig.model_validate({"source": str(path), "language": "en", "cache_dir": str(tmp_path / "cache")})
    said = look_at_text(config, str(tiny_whisper_dir))
    assert said[0] == "  sample   5000 lines, from 1 of 1 parts of the source"
    assert any(line.startswith('  such as  "line 0 of a text') for line in said)
    assert not (tmp_path / "cache").exists()


def test_commands_check_and_stop(
    spoken: Path, tiny_whisper_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"name: looked\noutput_dir: {tmp_path}/runs\ndata: {{source: {spoken}, cache_dir: {tmp_path}/cache}}\n"
        f"teacher: {{model: {tiny_whisper_dir}}}\nstudent: {{decoder_layers: 1}}\ntrain: {{steps: 4}}\n"
    )
    text = tmp_path / "text.txt"
    text.write_text("so many words on every line of it\n" * 9 + "other words on the very last line of it\n")
    mlm = tmp_path / "mlm.yaml"
    mlm.write_text(
        f"name: looked\noutput_dir: {tmp_path}/runs\ntext: {{source: {text}, language: en, cache_dir: {tmp_path}/cache}}\n"
        "mlm: {}\ntrain: {steps: 4}\n"
    )
    label.main(["--config", str(config), "--check"])
    assert "rows, from" in capsys.readouterr().out
    scratch = {"init": "scratch", "scratch": {"width": 32, "heads": 2, "ffn": 64, "window_s": 5}}
    untaught = ["teacher=null", f"student={json.dumps(scratch)}", "objective=ce"]
    print("\n".join(look_at_run(load_config(str(config), untaught))))
    assert "split    test: " in capsys.readouterr().out
    train_mlm.main(["--config", str(mlm), "--check"])
    assert "sample   10 lines" in capsys.readouterr().out
    evaluate.main(["--model", str(tiny_whisper_dir), "--data", str(spoken), "--check"])
    assert "split    test: " in capsys.readouterr().out
    assert not list((tmp_path / "runs").glob("*")), "nothing is begun"
    assert not list((tmp_path / "cache").glob("*"))
