"""A run whose teacher had been trained from a config could not be put into a report once that file was gone."""

from pathlib import Path

import pytest

from raykd.config import load_config, load_written_config
from raykd.errors import UserError


def test_a_config_that_a_run_wrote_is_read_without_what_it_was_taught_by(tmp_path: Path) -> None:
    written = tmp_path / "config.yaml"
    written.write_text("{data: {source: speech.jsonl}, teacher: {model: /gone/teacher.yaml}, train: {steps: 3}}")
    with pytest.raises(UserError, match=r"teacher\.model: no such file: /gone/teacher\.yaml"):
        load_config(str(written))
    config = load_written_config(str(written))
    assert config.teacher is not None
    assert (config.teacher.model, config.train.steps) == ("/gone/teacher.yaml", 3)
    written.write_text("{data: {source: speech.jsonl}, train: {steps: 0}}")
    with pytest.raises(UserError, match=r"train\.steps"):
        load_written_config(str(written))
