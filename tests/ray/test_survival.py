"""Killed workers and jobs: every utterance of an epoch is trained on once, and the loss goes on as if nothing had happened."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from raykd.config import dump_yaml
from raykd.data.corpus import Corpus
from raykd.tracking.history import read_history
from raykd.training.cluster import plan_resources
from raykd.training.shell import train_on_cluster
from raykd.training.worker import TrainingJob
from tests.jobs import MakeJob, job_maker
from tests.ray.commands import run_here, start
from tests.ray.histories import recorded_steps
from tests.training.workers import train_in_processes

STEPS, CHECKPOINT_EVERY = 9, 2
"""Three epochs of 22 utterances in batches of 8."""


@pytest.fixture
def make_job(manifest: Path, tiny_corpus: Corpus, tiny_whisper_dir: Path, tmp_path: Path) -> MakeJob:
    """Makes jobs on the corpus that Ray prepares of the manifest, as the command does when it is resumed."""
    return job_maker(str(manifest), tiny_corpus, tiny_whisper_dir, tmp_path)


def effective_ids(folder: str, restarted_after: int) -> Counter[tuple[int, str]]:
    """How often each (epoch, id) counts in the final weights: of a step that was repeated, only the last attempt does."""
    files = sorted(Path(folder).iterdir(), key=lambda file: file.stat().st_mtime)
    first_attempt = [file for file in files if json.loads(file.read_text().splitlines()[0])["step"] == 1]
    counts: Counter[tuple[int, str]] = Counter()
    for file in files:
        for row in map(json.loads, file.read_text().splitlines()):
            if file not in first_attempt or row["step"] <= restarted_after:
                counts.update((row["epoch"], utterance) for utterance in row["ids"])
    return counts


def every_id_once(corpus: Corpus, epochs: int) -> Counter[tuple[int, str]]:
    return Counter((epoch, str(utterance)) for epoch in range(epochs) for utterance in corpus.index("train").ids)


def kill_a_worker(job: TrainingJob) -> None:
    assert job.trained_ids is not None
    files = sorted(Path(job.trained_ids).glob("rank-1-pid-*.jsonl"), key=lambda file: file.stat().st_mtime)
    os.kill(int(files[-1].stem.rsplit("-", 1)[1]), signal.SIGKILL)


def test_a_killed_worker_is_replaced_and_nothing_is_lost(make_job: MakeJob, tiny_corpus: Corpus, tmp_path: Path) -> None:
    job = make_job("killed", steps=STEPS, checkpoint_every=CHECKPOINT_EVERY)
    records: list[dict] = []

    def on_record(record: dict) -> None:
        records.append(record)
        if record["kind"] == "train" and record["step"] == 5 and sum(r["kind"] == "started" for r in records) == 1:
            kill_a_worker(job)

    train_on_cluster(job, plan_resources(job.config.cluster), str(tmp_path / "ray"), on_record)
    first, second = [record["step"] for record in records if record["kind"] == "started"]
    assert first == 0
    assert second in (4, 6, 8), "from a checkpoint, not from the start"
    assert job.trained_ids is not None
    assert effective_ids(job.trained_ids, second) == every_id_once(tiny_corpus, epochs=3)

    (reference,) = train_in_processes([make_job("reference", steps=STEPS)], world=1)
    last = {r["step"]: r["loss"] for r in records if r["kind"] == "train"}
    assert last == pytest.approx({r["step"]: r["loss"] for r in reference if r["kind"] == "train"}, rel=1e-5)


def test_a_killed_job_goes_on_with_resume_and_fewer_workers(make_job: MakeJob, tiny_corpus: Corpus, tmp_path: Path) -> None:
    job = make_job("whole", steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, record_ids=True)
    config = job.config.model_copy(
        update={
            "output_dir": str(tmp_path / "runs"),
            "data": job.config.data.model_copy(update={"cache_dir": str(tmp_path / "cache")}),
            "tracking": job.config.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/mlflow.db", "log_model": False}),
        }
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config))
    run = tmp_path / "runs" / "distil"

    process = start("distill", path)
    while len(read_history(str(run / "history.jsonl")).train) <= CHECKPOINT_EVERY:
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    for file in (run / "trained_ids").glob("rank-*-pid-*.jsonl"):  # the whole machine is lost: workers would outlive the driver
        os.kill(int(file.stem.rsplit("-", 1)[1]), signal.SIGKILL)
    process.wait()
    assert not (run / "metrics.json").exists()

    run_here("distill", path, "--resume", "cluster.num_workers=1")
    assert (run / "metrics.json").exists()
    history = read_history(str(run / "history.jsonl"))
    steps = recorded_steps(history, STEPS)
    assert {1, 2, 3, STEPS} <= set(steps)
    (reference,) = train_in_processes([make_job("reference", steps=STEPS)], world=1)
    expected = [record["loss"] for record in reference if record["kind"] == "train" and record["step"] in steps]
    assert [record["loss"] for record in history.train] == pytest.approx(expected, rel=1e-5)
    restarted_after = min(row["step"] for row in _rows_of_last_attempt(run / "trained_ids")) - 1
    assert restarted_after >= CHECKPOINT_EVERY
    assert effective_ids(str(run / "trained_ids"), restarted_after) == every_id_once(tiny_corpus, epochs=3)


def _rows_of_last_attempt(folder: Path) -> list[dict]:
    newest = max(folder.iterdir(), key=lambda file: file.stat().st_mtime)
    return [json.loads(line) for line in newest.read_text().splitlines()]
