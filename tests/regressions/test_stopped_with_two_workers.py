"""A driver's wish to stop, as of a trial that a scheduler ends, reached the first worker only; the others waited for it, and
what they held stayed taken for as long as the sweep went on.
"""

import time
from pathlib import Path

import pytest
import ray

from raykd.training.cluster import plan_resources
from raykd.training.loop import Record
from raykd.training.shell import train_on_cluster
from tests.jobs import MakeJob


@pytest.mark.timeout(180)
def test_all_workers_end(ray_local: None, make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("stopped", steps=2000)

    def on_record(record: Record) -> None:
        if record["kind"] == "train" and record["step"] == 2:
            raise SystemExit

    with pytest.raises(SystemExit):
        train_on_cluster(job, plan_resources(job.config.cluster), str(tmp_path / "ray"), on_record)
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.5)
