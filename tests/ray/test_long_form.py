"""Recordings longer than a window: evaluated as a whole, and labelled and cut into utterances that train."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from raykd import evaluate
from raykd.config import Config, dump_yaml
from raykd.config.data import DataConfig
from raykd.data.corpus import read_utterances
from raykd.data.format import SpeechFormat
from raykd.data.prepare import prepare_corpus
from tests.ray.commands import run_here

SECONDS = (3.0, 7.0, 5.5)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three recordings for a window of 5 s, and of a file that is none."""
    folder = tmp_path_factory.mktemp("recordings")
    draws = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number, seconds in enumerate(SECONDS):
        times = np.arange(int(seconds * 16_000)) / 16_000
        samples = 0.3 * np.sin(2 * np.pi * (200 + 300 * np.floor(3 * times)) * times) + 0.01 * draws.standard_normal(len(times))
        soundfile.write(folder / f"r{number}.flac", samples, 16_000)
        rows.append({"audio": f"r{number}.flac", "text": "nějaká slova", "language": "cs", "split": "test"})
    (folder / "broken.flac").write_bytes(b"fLaC, but no more")
    rows.append({"audio": "broken.flac", "text": "nic", "language": "cs", "split": "test"})
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("method", ["sequential", "chunked"])
def test_error_rates_are_of_whole_recordings(
    method: str, recordings: Path, lively_dir: Path, ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        evaluate.main(
            [
                *("--model", str(lively_dir), "--data", str(recordings), "--long-form", method, "--out", str(out)),
                *(f"evaluation.workers={workers}", f"data.cache_dir={tmp_path / 'cache'}", "evaluation.batch_size=4"),
                "data.max_reject_share=0.3",
            ]
        )
        made.append(pq.read_table(out / "test.parquet"))
        summary = json.loads((out / "test.json").read_text())
        assert summary["audio_s"] == pytest.approx(sum(SECONDS), abs=0.1)
        assert summary["decoding"].startswith("long form")
        assert summary["left_out"] == {"unreadable audio": 1}
    assert made[0].equals(made[1])
    assert made[0].column("id").to_pylist() == ["r0.flac", "r1.flac", "r2.flac"]
    assert made[0].column("duration_s").to_pylist() == list(SECONDS)
    assert len(set(made[0].column("hypothesis").to_pylist())) == 3
    assert "left out: 1 rows of the source (unreadable audio (1))" in capsys.readouterr().out


def test_labels_of_recordings_are_parts_of_them(
    recordings: Path, lively_dir: Path, tiny_format: SpeechFormat, ray_local: None, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in recordings.read_text().splitlines()]
    unlabelled = recordings.parent / "unlabelled.jsonl"
    unlabelled.write_text("".join(json.dumps({"audio": row["audio"], "language": "cs"}) + "\n" for row in rows))
    config = Config.model_validate(
        {
            "data": {"source": str(unlabelled), "cache_dir": str(tmp_path / "cache"), "max_reject_share": 0.3},
            "teacher": {"model": str(lively_dir), "dtype": "float32"},
            "student": {"decoder_layers": 1},
            "objective": {"recipe": "kd"},
            "train": {"steps": 1},
        }
    )
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    out = tmp_path / "labels"

    def label() -> str:
        return run_here("label", tmp_path / "config.yaml", "--long-form", "--out", str(out), folder=tmp_path)

    said = label()
    found = json.loads((out / "recordings.json").read_text())
    assert found["dropped"]["unreadable audio"] == 1
    lines = [json.loads(line) for line in (out / "segments.jsonl").read_text().splitlines()]
    assert f"utterances  {len(lines)}" in said
    for line in lines:
        seconds = SECONDS[int(Path(line["audio"]).stem[1:])]
        assert 0 <= line["start"] < line["end"] <= seconds
        assert line["text"]
    # What was done is not done again, but for what failed and for what is another recording now.
    pieces = {json.loads(path.read_text())["path"]: path for path in (out / "parts").iterdir()}
    times = {name: path.stat().st_mtime_ns for name, path in pieces.items()}
    changed = next(name for name in pieces if name.endswith("r0.flac"))
    os.utime(changed, (1, 1))
    label()
    again = {name for name, path in pieces.items() if path.stat().st_mtime_ns != times[name]}
    assert {Path(name).name for name in again} == {"r0.flac", "broken.flac"}
    assert [json.loads(line) for line in (out / "segments.jsonl").read_text().splitlines()] == lines
    # The manifest is a source: each of its rows that can be used is that part of its recording.
    data = DataConfig(source=str(out / "segments.jsonl"), cache_dir=str(tmp_path / "cache"), dev_share=0, max_reject_share=1)
    corpus = prepare_corpus(data, tiny_format)
    index = corpus.index("all")
    spans = {f"{line['start']:.2f}-{line['end']:.2f}": line for line in lines}
    for utterance in read_utterances(corpus.path, index, range(len(index))):
        line = spans[utterance.id.rpartition(":")[2]]
        assert utterance.duration_s == pytest.approx(line["end"] - line["start"], abs=0.01)
