"""A corpus was kept although its source had changed, or made anew although nothing had.

The rows that votes chose stood in a set, whose order is another in every process, so that no run on them could be resumed;
corrected transcripts beside recordings, and whatever changed in a local Hugging Face dataset, went unseen.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raykd.config.data import DataConfig
from raykd.data.sources import all_parts
from tests.unit.test_sources import clip
from tests.unit.test_sources_folders import common_voice


def named(source: object) -> str:
    """What a corpus's key has of its source."""
    return repr(all_parts(DataConfig.model_validate({"source": source, "language": "cs"})))


def test_votes_choose_the_same_in_every_process(tmp_path: Path) -> None:
    source = {"kind": "common_voice", "path": str(common_voice(tmp_path / "cs")), "train_rows": 2}
    code = f"from tests.regressions.test_changed_sources import named; print(named({source!r}))"
    made = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert made[0] == made[1] == named(source) + "\n"


def test_a_corrected_transcript_beside_a_recording_counts(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(clip(300, "FLAC"))
    (tmp_path / "a.txt").write_text("dobry den")
    before = named(str(tmp_path))
    assert named(str(tmp_path)) == before
    (tmp_path / "a.txt").write_text("dobrý den")
    assert named(str(tmp_path)) != before


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_new_texts_in_a_hugging_face_dataset_count(tmp_path: Path, kind: str) -> None:
    """Rewritten with as many rows under the same names."""
    file = tmp_path / "data" / f"train-00000-of-00001.{kind}"
    file.parent.mkdir()

    def write(text: str, second: int) -> None:
        if kind == "parquet":
            audio = pa.array([{"bytes": clip(300, "FLAC"), "path": "a.flac"}])
            pq.write_table(pa.table({"audio": audio, "text": [text]}), file)
        else:
            file.write_text(json.dumps({"audio": "a.flac", "text": text}) + "\n")
        os.utime(file, (second, second))

    source = {"kind": "huggingface", "path": str(tmp_path)}
    write("jedna", 1_000_000)
    before = named(source)
    assert named(source) == before
    write("dvě", 1_000_001)
    assert named(source) != before
