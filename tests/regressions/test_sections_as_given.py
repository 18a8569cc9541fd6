"""Looking for models in a config counted every key as given by the user, so that a folder's kind did not know some of them."""

from pathlib import Path

import pytest

from raykd.config import load_config
from raykd.config.data import AudioFolderSource
from raykd.data.sources.recognise import with_speech_kinds


def test_a_folder_named_in_a_file_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "a.wav").touch()
    (tmp_path / "teacher.yaml").write_text("data: {source: demo}\nstudent: scratch\nobjective: ce\ntrain: {steps: 1}\n")
    (tmp_path / "run.yaml").write_text("data: {source: recordings}\nteacher: {model: teacher.yaml}\ntrain: {steps: 1}\n")
    config = load_config("run.yaml")
    assert config.data.source[0].model_fields_set == {"kind", "path"}
    assert with_speech_kinds(config.data).source == (AudioFolderSource(path="recordings"),)
