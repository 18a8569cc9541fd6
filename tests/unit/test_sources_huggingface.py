"""Hugging Face datasets in their genuine layouts. They are written with `datasets` itself, without decoding any audio."""

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from datasets import Audio, ClassLabel, Features, Value

from raykd.config.data import DataConfig
from raykd.data.audio import read_samples
from raykd.data.sources import all_parts
from raykd.data.utterances import tables
from raykd.errors import UserError

FLEURS = Features(
    {
        "id": Value("int32"),
        "num_samples": Value("int32"),
        "path": Value("string"),
        "audio": Audio(sampling_rate=16_000),
        "transcription": Value("string"),
        "raw_transcription": Value("string"),
        "gender": ClassLabel(names=["male", "female", "other"]),
        "language": Value("string"),
    }
)


def clip() -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, 0.5 * np.sin(0.1 * np.arange(3_200)), 16_000, format="WAV")
    return stream.getvalue()


def dataset(features: Features, columns: dict[str, list[Any]]) -> datasets.Dataset:
    return datasets.Dataset(datasets.table.InMemoryTable(pa.table(columns, schema=features.arrow_schema)))


def fleurs() -> datasets.Dataset:
    """Two recordings of one sentence share their `id`, as in the real one."""
    return dataset(
        FLEURS,
        {
            "id": [1660, 1660, 1661],
            "num_samples": [3_200] * 3,
            "path": ["/cache/1.wav", "/cache/2.wav", "/cache/3.wav"],
            "audio": [{"bytes": clip(), "path": f"{number}.wav"} for number in range(3)],
            "transcription": ["jedna", "jedna", None],
            "raw_transcription": ["Jedna!", "Jedna!", "Dvě."],
            "gender": [0, 1, 2],
            "language": ["Czech"] * 3,
        },
    )


def read(source: Any, language: str | None = None) -> list[dict[str, Any]]:
    config = DataConfig.model_validate({"source": source, "language": language})
    return [row for part in all_parts(config) for table in tables(part.rows()) for row in table.to_pylist()]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A dataset repository as on the hub: Parquet files, and a README whose YAML says which are which."""
    splits = ("train", "validation", "test")
    (tmp_path / "cs_cz").mkdir()
    for split in splits:
        fleurs().to_parquet(tmp_path / f"cs_cz/{split}-00000-of-00001.parquet", batch_size=2)
    files = "\n".join(f"  - split: {split}\n    path: cs_cz/{split}-*" for split in splits)
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: cs_cz\n  data_files:\n{files}\n---\n# FLEURS\n")
    return tmp_path


def test_a_dataset_repository(repository: Path) -> None:
    rows = read({"kind": "huggingface", "path": str(repository), "name": "cs_cz"})
    assert [(row["id"], row["text"], row["split"]) for row in rows if row["split"] != "test"] == [
        ("cs_cz/train-00000-of-00001.parquet:0", "jedna", "train"),
        ("cs_cz/train-00000-of-00001.parquet:1", "jedna", "train"),
        ("cs_cz/train-00000-of-00001.parquet:2", "Dvě.", "train"),
        ("cs_cz/validation-00000-of-00001.parquet:0", "jedna", "dev"),
        ("cs_cz/validation-00000-of-00001.parquet:1", "jedna", "dev"),
        ("cs_cz/validation-00000-of-00001.parquet:2", "Dvě.", "dev"),
    ]
    assert len({row["id"] for row in rows}) == 9
    assert {row["language"] for row in rows} == {"cs"}
    assert all(len(read_samples(row)) == 3_200 for row in rows)


def test_the_text_column_can_be_chosen(repository: Path) -> None:
    source = {"kind": "huggingface", "path": str(repository), "name": "cs_cz", "text_column": "raw_transcription"}
    assert [row["text"] for row in read(source)[:3]] == ["Jedna!", "Jedna!", "Dvě."]
    with pytest.raises(UserError, match="no transcript column; name it words"):
        read(source | {"text_column": "words"})
    with pytest.raises(UserError, match="no audio column; name it speech"):
        read(source | {"audio_column": "speech"})


def test_a_saved_dataset_dict_is_recognised(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": fleurs(), "validation": fleurs()}).save_to_disk(tmp_path / "saved", num_proc=None)
    rows = read(str(tmp_path / "saved"))
    assert [(row["id"], row["split"], row["text"]) for row in rows] == [
        ("train/data-00000-of-00001.arrow:0", "train", "jedna"),
        ("train/data-00000-of-00001.arrow:1", "train", "jedna"),
        ("train/data-00000-of-00001.arrow:2", "train", "Dvě."),
        ("validation/data-00000-of-00001.arrow:0", "dev", "jedna"),
        ("validation/data-00000-of-00001.arrow:1", "dev", "jedna"),
        ("validation/data-00000-of-00001.arrow:2", "dev", "Dvě."),
    ]
    assert all(len(read_samples(row)) == 3_200 for row in rows)


def test_a_single_saved_dataset_with_numbered_languages(tmp_path: Path) -> None:
    features = Features({"audio": Audio(), "text": Value("string"), "language": ClassLabel(names=["en", "pl"])})
    audio = {"bytes": clip(), "path": None}
    saved = dataset(features, {"audio": [audio, audio, None], "text": ["a", "b", "c"], "language": [1, 0, 0]})
    saved.save_to_disk(tmp_path / "saved")
    rows = read(str(tmp_path / "saved"))
    assert [(row["language"], row["split"], row["problem"]) for row in rows] == [
        ("pl", None, None),
        ("en", None, None),
        ("en", None, "no audio"),
    ]
    file = next((tmp_path / "saved").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-2_000])
    assert read(str(tmp_path / "saved"))[-1]["problem"] == "unreadable rest of an Arrow file"


@pytest.mark.parametrize("cut", [True, False])
def test_saved_datasets_from_folders_of_different_splits(tmp_path: Path, cut: bool) -> None:
    """Pieces of one that was loaded as `train` still say so."""
    for name in ("train", "test"):
        saved = fleurs()
        saved._split = datasets.Split.TRAIN if cut else None
        saved.save_to_disk(tmp_path / name)
    both = [{"kind": "huggingface", "path": str(tmp_path / name)} for name in ("train", "test")]
    assert [row["split"] for row in read(both)] == ["train"] * 3 + ["test"] * 3


def test_a_repository_of_another_format_is_streamed(tmp_path: Path) -> None:
    (tmp_path / "data/train").mkdir(parents=True)
    for number in range(2):
        (tmp_path / f"data/train/{number}.wav").write_bytes(clip())
    lines = [json.dumps({"file_name": f"{number}.wav", "sentence": f"text {number}"}) + "\n" for number in range(2)]
    (tmp_path / "data/train/metadata.jsonl").write_text("".join(lines))
    (tmp_path / "README.md").write_text("# recordings\n")
    rows = read(str(tmp_path), language="en")
    assert [(row["id"], row["text"], row["split"]) for row in rows] == [
        ("data/train/0.wav", "text 0", "train"),
        ("data/train/1.wav", "text 1", "train"),
    ]
    assert all(len(read_samples(row)) == 3_200 for row in rows)


def test_datasets_that_cannot_be_opened(repository: Path) -> None:
    with pytest.raises(UserError, match="cs_cz"):
        read({"kind": "huggingface", "path": str(repository), "name": "pl_pl"})
    with pytest.raises(UserError, match="does not exist"):
        read({"kind": "huggingface", "path": str(repository / "none" / "such")})
    with pytest.raises(UserError, match="cannot be opened") as caught:
        read("hf:nobody/no-such-dataset", language="cs")
    assert "\n" not in str(caught.value)
