"""Sources through Ray Data: same rows, same order, audio read inside the tasks."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import soundfile

from raykd.config.data import DataConfig
from raykd.data.audio import AudioError, read_samples
from raykd.data.sources import all_parts
from raykd.data.sources.dataset import dataset_of
from raykd.data.utterances import SCHEMA, tables

ROWS = 700


def clip(seconds: float) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, 0.5 * np.sin(0.1 * np.arange(int(8_000 * seconds))), 8_000, format="WAV")
    return stream.getvalue()


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """A manifest of paths cut into several parts, embedded audio in Parquet, and a tar; one bad row in each."""
    (tmp_path / "a.wav").write_bytes(clip(0.1))
    lines = [json.dumps({"id": f"row-{number}", "audio": "a.wav", "text": f"text {number}"}) for number in range(ROWS)]
    lines[300] = "{broken"
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    audio = pa.array([clip(0.2), clip(0.3), None], pa.binary())
    pq.write_table(pa.table({"audio": audio, "text": ["a", "b", "c"], "lang": ["cs"] * 3}), tmp_path / "m.parquet")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, content in {
            "0.wav": clip(0.4),
            "0.txt": b"zero",
            "1.wav": b"not audio",
            "1.txt": b"one",
            "2.wav": b"",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    sources = [str(tmp_path / name) for name in ("m.jsonl", "m.parquet", "t.tar")]
    return DataConfig.model_validate({"source": sources, "language": "en"})


def blocks_in_order(dataset: ray.data.Dataset) -> list[pa.Table]:
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    blocks: Any = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    return list(blocks)


def durations(batch: pa.Table) -> pa.Table:
    def measure(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"id": row["id"], "samples": len(read_samples(row)), "reason": row["problem"]}
        except AudioError as error:
            return {"id": row["id"], "samples": 0, "reason": row["problem"] or error.reason}

    return pa.Table.from_pylist([measure(row) for row in batch.to_pylist()])


@pytest.mark.usefixtures("ray_local")
def test_ray_yields_the_rows_of_all_sources_in_order(config: DataConfig) -> None:
    plain = [row for part in all_parts(config) for table in tables(part.rows()) for row in table.to_pylist()]
    dataset = dataset_of(all_parts(config))
    schema = dataset.schema()
    assert schema is not None
    assert schema.base_schema == SCHEMA
    blocks = blocks_in_order(dataset)
    assert all(block.schema == SCHEMA for block in blocks)
    assert [row for block in blocks for row in block.to_pylist()] == plain
    assert len(plain) == ROWS + 3 + 3
    assert [row["id"] for row in plain if row["problem"]] == ["m.jsonl:301", "2:m.parquet:2", "3:t/2"]


@pytest.mark.usefixtures("ray_local")
def test_audio_is_read_inside_the_tasks_and_their_number_follows_the_parts(config: DataConfig) -> None:
    blocks = blocks_in_order(
        dataset_of(all_parts(config)).map_batches(durations, batch_size=64, batch_format="pyarrow", num_cpus=1)
    )
    rows = [row for block in blocks for row in block.to_pylist()]
    assert len(blocks) >= 3
    assert [row["samples"] for row in rows[:2]] == [1_600, 1_600]
    assert {row["id"]: (row["samples"], row["reason"]) for row in rows[ROWS:]} == {
        "2:m.parquet:0": (3_200, None),
        "2:m.parquet:1": (4_800, None),
        "2:m.parquet:2": (0, "no audio"),
        "3:t/0": (6_400, None),
        "3:t/1": (0, "unreadable audio"),
        "3:t/2": (0, "no audio"),
    }


@pytest.mark.usefixtures("ray_local")
def test_one_source_alone_has_no_prefix(config: DataConfig) -> None:
    (block,) = blocks_in_order(dataset_of(all_parts(config.model_copy(update={"source": config.source[1:2]}))))
    assert block.column("id").to_pylist() == ["m.parquet:0", "m.parquet:1", "m.parquet:2"]
