"""The README's method at work: its file travels into the workers, and two of them train as one does."""

from pathlib import Path

import pytest

from raykd.parts.outside import load_parts_file, outside_hash
from tests.jobs import MakeJob
from tests.outside import forgotten, readme_method
from tests.training.workers import train_in_processes


def test_the_readmes_method_trains(make_job: MakeJob, tmp_path: Path) -> None:
    with forgotten():
        path = readme_method(tmp_path)
        load_parts_file(str(path))
        path.unlink()
        jobs = [make_job(name, steps=2, objective={"recipe": "hard_kd"}) for name in ("one", "two")]
        assert outside_hash(jobs[0].config)
        runs = [train_in_processes(jobs[world - 1 :][:1], world=world)[0] for world in (1, 2)]
    one, two = ([record for record in records if record["kind"] == "train"] for records in runs)
    assert [set(record["terms"]) for record in one] == [{"ce", "hard_kl"}] * 2
    assert [record["loss"] for record in two] == pytest.approx([record["loss"] for record in one], rel=1e-5)
