"""Runs that live on remote storage: their configs were read from local paths only, a resume fetched the whole run to read one
file, and a lost worker cost the last minute of the history.
"""

import json
from pathlib import Path

import pytest

from raykd import storage
from raykd.config import Config, dump_yaml, load_config
from raykd.config.load import load_written_config
from raykd.errors import UserError
from raykd.runs import keep_parts
from raykd.tracking.history import HistoryWriter, read_history
from raykd.tracking.run_folder import RunFolder

FOCAL = '''
from typing import Literal
from raykd.parts.terms.ce import Ce

class BucketCe(Ce):
    """Cross-entropy under another name."""
    kind: Literal["bucket_ce"] = "bucket_ce"
'''


@pytest.mark.parametrize("scheme", ["", "file://", "fsspec+memory://"])
def test_a_config_is_read_wherever_it_lies(tmp_path: Path, scheme: str) -> None:
    (tmp_path / "mine.py").write_text(FOCAL)
    (tmp_path / "c.yaml").write_text(
        json.dumps(
            {
                "parts": ["mine.py"],
                "data": {"source": "demo"},
                "student": {"init": "openai/whisper-tiny"},
                "objective": {"terms": [{"kind": "bucket_ce"}]},
                "train": {"steps": 1},
            }
        )
    )
    config = load_config(str(tmp_path / "c.yaml"))
    run = RunFolder(f"{scheme}{tmp_path}/runs/there")
    run.write_text("config.yaml", dump_yaml(config))
    keep_parts(config, run)
    (tmp_path / "mine.py").unlink()
    assert isinstance(load_written_config(run.config_path), Config)
    assert load_config(run.config_path).method.terms[0].kind == "bucket_ce"


def test_a_remote_config_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"fsspec\+memory://nowhere/config\.yaml: cannot be read"):
        load_written_config("fsspec+memory://nowhere/config.yaml")


def test_a_rewound_history_has_what_was_not_uploaded_yet() -> None:
    path = "fsspec+memory://rewound/history.jsonl"
    history = HistoryWriter(path, upload_every_s=3600)
    history.record({"kind": "train", "step": 1, "loss": 3.0})
    for step in (2, 3, 4):
        history.record({"kind": "train", "step": step, "loss": 3.0})
    history.record({"kind": "eval", "step": 2, "split": "dev", "wer": 0.5})
    history.rewind(3)
    history.flush()
    found = read_history(path)
    assert [record["step"] for record in found.train] == [1, 2, 3]
    assert [record["wer"] for record in found.eval] == [0.5]
    assert storage.exists(path)
