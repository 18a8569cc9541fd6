"""Two runs trained the same teacher in one folder, and `--resume` went on with a run that was still alive."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raykd import lease, storage, teachers
from raykd.config import Config
from raykd.errors import UserError
from raykd.lease import LEASE_FILE, Owner, leased
from raykd.runs import opened_run
from raykd.teachers import ensure_teacher
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from tests.teachers import student_of, training


class Taken(Exception):  # noqa: N818 (what the tests' own `when_taken` raises)
    pass


def taken(owner: Owner) -> None:
    raise Taken(str(owner))


def leave_lease(folder: Path, **changes: Any) -> None:
    """What a process left that was killed."""
    folder.mkdir(exist_ok=True)
    values = {"id": "x", "host": "old", "machine": "old", "pid": 1, "heartbeat": time.time(), **changes}
    (folder / LEASE_FILE).write_text(json.dumps(values))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_second_run_waits_for_the_teacher_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "_LOOK_AGAIN_S", 0.01)
    config = student_of(tmp_path)
    said: list[str] = []
    found: list[str] = []
    waits = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        waits.set()

    def never(teacher: Config, resume: bool) -> RunFolder:
        pytest.fail("trained twice")

    second = threading.Thread(target=lambda: found.append(ensure_teacher(config, never, say)))

    def distil(teacher: Config, resume: bool) -> RunFolder:
        run = RunFolder.create(teacher)
        second.start()
        assert waits.wait(10)
        for name in ("metrics.json", "report.html"):
            run.write_text(name, "")
        return run

    first = ensure_teacher(config, distil)
    second.join(10)
    assert found == [first]
    assert len(said) == 1
    assert f"master is being trained by another run (process {os.getpid()} on" in said[0]


def test_a_teacher_whose_run_died_is_gone_on_with(tmp_path: Path) -> None:
    config = student_of(tmp_path)
    folder = Path(training(config).output_dir)
    assert not (folder / LEASE_FILE).exists(), "an error gives the lease back"
    leave_lease(folder, machine=lease._machine(), pid=dead_pid())
    (folder / "master").mkdir()
    (folder / "master" / "config.yaml").write_text("name: master")
    assert training(config).resume is True


def test_a_run_at_work_is_not_resumed(tmp_path: Path) -> None:
    tree = {"data": {"source": "demo"}, "student": {"init": "scratch"}, "objective": {"recipe": "ce"}, "train": {"steps": 1}}
    config = Config.model_validate({**tree, "output_dir": str(tmp_path), "tracking": {"mlflow": False}})
    quiet = Progress(quiet=True)
    with opened_run(config, False, 1, quiet) as (_, run):
        before = run.read_text("config.yaml")
        with pytest.raises(UserError) as refused, opened_run(config, True, 1, quiet):
            pytest.fail("resumed")
        assert run.read_text("config.yaml") == before
    assert f"{tmp_path}/distil: the run is in use by process {os.getpid()} on" in str(refused.value)
    assert "\n" not in str(refused.value)
    with opened_run(config, True, 1, quiet) as (_, again):
        assert again == run


@pytest.mark.parametrize(
    ("changes", "live"),
    [
        ({}, True),
        ({"heartbeat": 0.0}, False),
        ({"machine": lease._machine(), "pid": os.getpid()}, True),
        ({"machine": lease._machine(), "pid": 2**22 + 1}, False),
        ({"pid": 2**22 + 1}, True),
    ],
    ids=["elsewhere", "silent", "here", "dead here", "a number of another machine"],
)
def test_a_lease_is_taken_over_from_the_dead_only(tmp_path: Path, changes: dict[str, Any], live: bool) -> None:
    leave_lease(tmp_path, **changes)
    try:
        with leased(str(tmp_path), taken):
            assert not live
            with pytest.raises(Taken), leased(str(tmp_path), taken):
                pytest.fail("two owners")
    except Taken:
        assert live
    else:
        assert os.listdir(tmp_path) == []


def test_a_lease_cut_off_while_it_was_written_is_a_live_one_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / LEASE_FILE
    path.write_text('{"id": ')
    with pytest.raises(Taken), leased(str(tmp_path), taken):
        pytest.fail("taken from one that may be writing it")
    os.utime(path, (0, 0))
    with leased(str(tmp_path), taken):
        pass


def test_of_many_that_take_over_one_succeeds(tmp_path: Path) -> None:
    for _ in range(20):
        leave_lease(tmp_path, heartbeat=0.0)
        inside: list[int] = []
        most: list[int] = []
        barrier = threading.Barrier(8)

        def work(barrier: threading.Barrier = barrier, inside: list[int] = inside, most: list[int] = most) -> None:
            barrier.wait()
            with leased(str(tmp_path), lambda _: time.sleep(0.002)):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1] * 8


def test_the_heart_beats_and_stops_for_a_new_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    path = tmp_path / LEASE_FILE
    with leased(str(tmp_path), taken):
        first = json.loads(path.read_text())
        deadline = time.monotonic() + 5
        while json.loads(path.read_text())["heartbeat"] == first["heartbeat"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        leave_lease(tmp_path, id="another")
        time.sleep(0.1)
        if json.loads(path.read_text())["id"] != "another":  # a beat was just under way
            leave_lease(tmp_path, id="another")
    assert json.loads(path.read_text())["id"] == "another"


def test_a_remote_folder_has_one_owner_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_SETTLE_S", 0.05)
    folder = "fsspec+memory://two-runs-one-folder/teacher"
    with leased(folder, taken), pytest.raises(Taken), leased(folder, taken):
        pytest.fail("two owners")
    assert storage.list_dir(folder) == []
    made: list[bool] = []
    data = (b"one", b"two")
    threads = [threading.Thread(target=lambda d=d: made.append(storage.create_new(f"{folder}/file", d))) for d in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, True]
