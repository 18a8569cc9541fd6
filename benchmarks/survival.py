"""Kills a part of a run at a random moment, goes on with --resume, and looks whether anything was lost.

    python benchmarks/survival.py --kills 20 --seed 1 [--out /tmp/survival] [--at s3://bucket/survival]

A small distillation on demo speech (two workers, ids of all batches recorded) is run once undisturbed, and what it consists of
is written down four times a second. Then, `--kills` times, in turn: a training worker, the driver, the raylet, Ray's head
process (GCS), a data task, the mailbox, an evaluation, a worker as a checkpoint appears, is killed with SIGKILL at a moment
drawn from the first three quarters of the time that the undisturbed run had such a part, counted from when there is one; a run
that did not end by itself is given --resume (one that had not begun, the same command again) until it does. For each: whether
the last step's loss is that of the undisturbed run, whether every utterance of each epoch counts once in the final weights, and
whether processes, shared memory or temporary folders are left behind. With `--at` runs and prepared speech live there, such as
in a bucket of a local S3 server (`moto_server -p 5055`, and AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set).
It kills every Ray process of the machine: nothing else may run on it.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from pyarrow import fs
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from raykd import storage
from raykd.tracking.history import read_history

TARGETS: dict[str, tuple[str, ...]] = {
    "training worker": ("RayTrainWorker",),
    "driver": (),
    "raylet": ("raylet/raylet",),
    "head process": ("gcs_server",),
    "data task": ("_Tasks", "_read", "MapBatches", "ReadTasks", "ray::Map", "ray::Read"),
    "mailbox": ("_Box",),
    "evaluation": ("_recognise",),
    "checkpoint": ("RayTrainWorker",),
}
"""Parts to kill, by words of their processes' command lines."""
CONFIG: dict[str, Any] = {
    "data": {"source": {"kind": "demo", "languages": ["cs"], "hours": 0.1, "kinds": ["number"]}},
    "student": {
        "init": "scratch",
        "scratch": {
            "width": 64,
            "heads": 2,
            "ffn": 128,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "window_s": 6,
            "max_label_tokens": 48,
        },
    },
    "objective": {"recipe": "ce"},
    "train": {"steps": 24, "batch_size": 16, "lr": 1e-3, "eval_every": 8, "checkpoint_every": 4, "record_ids": True},
    "evaluation": {"batch_size": 8, "max_new_tokens": 8, "speed_batch_sizes": [1], "speed_utterances": 2},
    "tracking": {"mlflow": False},
}
LONGEST_S = 400
MOST_STARTS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="/tmp/survival", help="folder for configs and logs, and for the runs without --at")
    parser.add_argument("--at", help="where the runs live, on any storage")
    options = parser.parse_args()
    campaign = Campaign(Path(options.out), options.at or options.out)
    campaign.out.mkdir(parents=True, exist_ok=True)
    draws = random.Random(options.seed)
    campaign.undisturbed("warm-up")
    lives = campaign.undisturbed("undisturbed")
    print("parts and when the undisturbed run had them, s:", lives, flush=True)
    expected = campaign.outcome("undisturbed")
    table = Table("", "killed", "after", "runs", "loss as undisturbed", "every id once", "left behind", box=MARKDOWN)
    good = 0
    for number in range(options.kills):
        target = list(TARGETS)[number % len(TARGETS)]
        (born, died), share = lives[target], draws.uniform(0, 0.75)
        name = f"kill-{number:02d}"
        before = set(files_left())
        runs, hit = campaign.killed(name, target, share * (died - born))
        found = campaign.outcome(name)
        left = [process.name() for process in others()] + sorted(set(files_left()) - before)
        same = found is not None and expected is not None and abs(found[0] - expected[0]) <= 1e-5 * abs(expected[0])
        once = found is not None and expected is not None and found[1] == expected[1]
        good += same and once and not left
        what, when = (target, f"{hit:.0f} s") if hit else (f"{target} (was not there)", "")
        table.add_row(str(number + 1), what, when, str(runs), str(same), str(once), ", ".join(left) or "nothing")
        print(f"{number + 1}/{options.kills} {what} {when}: {'good' if same and once and not left else 'BAD'}", flush=True)
        for process in others():
            process.kill()
    Console(width=140).print(table)
    print(f"{good} of {options.kills} went on as if nothing had happened")


@dataclass(frozen=True)
class Campaign:
    """Runs of one config that are killed."""

    out: Path
    """Configs and logs."""
    at: str
    """Runs and prepared speech, local or remote."""

    def undisturbed(self, name: str) -> dict[str, tuple[int, int]]:
        """The first and the last moment of a run at which it had each part, in seconds since its start."""
        began = time.monotonic()
        process = self._started(name)
        moments: dict[str, list[float]] = {target: [] for target in TARGETS}
        while process.poll() is None:
            for target in TARGETS:
                if part_of(process, target):
                    moments[target].append(time.monotonic() - began)
            time.sleep(0.25)
        if not self._ended(process, name):
            sys.exit((self.out / f"{name}.log").read_text())
        if missing := [target for target, at in moments.items() if not at]:
            sys.exit(f"the undisturbed run was never seen to have: {', '.join(missing)}")
        return {target: (round(min(at)), round(max(at))) for target, at in moments.items()}

    def killed(self, name: str, target: str, age_s: float) -> tuple[int, float | None]:
        """Kill a part of a run at some age and let the run go on to its end: how often it was started, and after how many
        seconds the part was killed, if there was one."""
        process = self._started(name)
        began = time.monotonic()
        while process.poll() is None and not part_of(process, target):
            time.sleep(0.05)
        time.sleep(age_s)
        written = self._checkpoints(name)
        hit = None
        while hit is None and process.poll() is None:
            part = part_of(process, target)
            if part and (target != "checkpoint" or self._checkpoints(name) - written):
                part.kill()
                hit = time.monotonic() - began
            time.sleep(0.01)
        runs = 1
        while not self._ended(process, name) and runs <= MOST_STARTS:
            runs += 1
            begun = storage.exists(storage.join(self._folder(name), "config.yaml"))
            process = self._started(name, *(["--resume"] if begun else []))
        return runs, hit

    def outcome(self, name: str) -> tuple[float, Counter[tuple[int, str]]] | None:
        """The last step's loss, and how often each (epoch, id) counts in the final weights: of a step that was done again the
        last time does."""
        folder = self._folder(name)
        steps = read_history(storage.join(folder, "history.jsonl")).train
        if not steps:
            return None
        filesystem, inner = storage.filesystem_of(storage.join(folder, "trained_ids"))
        last: dict[tuple[int, str], dict[str, Any]] = {}
        for file in sorted(filesystem.get_file_info(fs.FileSelector(inner)), key=lambda one: one.mtime_ns):
            rank = file.base_name.split("-pid-")[0]
            with filesystem.open_input_stream(file.path) as stream:
                for row in map(json.loads, stream.read().splitlines()):
                    last[row["step"], rank] = row
        return steps[-1]["loss"], Counter((row["epoch"], one) for row in last.values() for one in row["ids"])

    def _checkpoints(self, name: str) -> set[str]:
        """Folders of checkpoints, whole or not."""
        folder = storage.join(self._folder(name), "checkpoints")
        if not storage.exists(folder):
            return set()
        filesystem, inner = storage.filesystem_of(folder)
        return {one.base_name for one in filesystem.get_file_info(fs.FileSelector(inner))}

    def _folder(self, name: str) -> str:
        return storage.join(self.at, f"runs/{name}")

    def _started(self, name: str, *more: str) -> "subprocess.Popen[bytes]":
        tree = {**CONFIG, "name": name, "output_dir": storage.join(self.at, "runs")}
        tree["data"] = {**CONFIG["data"], "cache_dir": storage.join(self.at, f"cache/{name}")}
        path = self.out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        command = [sys.executable, "-m", "raykd.distill", "--config", str(path), *more]
        log = (self.out / f"{name}.log").open("ab")
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _ended(self, process: "subprocess.Popen[bytes]", name: str) -> bool:
        """Wait for a process; whether its run is finished."""
        try:
            process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(3)
        return storage.exists(storage.join(self._folder(name), "report.html"))


def part_of(process: "subprocess.Popen[bytes]", target: str) -> psutil.Process | None:
    """A process of a run that does such work."""
    try:
        driver = psutil.Process(process.pid)
        children = driver.children(recursive=True)
    except psutil.Error:
        return None
    if target == "driver":
        return driver
    for child in children:
        try:
            line = " ".join(child.cmdline()) or child.name()
        except psutil.Error:
            continue
        if any(mark in line for mark in TARGETS[target]):
            return child
    return None


def others() -> Iterator[psutil.Process]:
    """Processes of Ray that nobody waits for."""
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "raylet/raylet" in line or "gcs_server" in line or line.startswith("ray::"):
            yield process


def files_left() -> list[str]:
    """What Ray and raykd keep in memory and in temporary folders while they work."""
    places = [(Path("/dev/shm"), "plasma*"), (Path("/dev/shm"), "torch_*"), (Path(tempfile.gettempdir()), "raykd*")]
    return [str(path) for folder, pattern in places for path in folder.glob(pattern)]


if __name__ == "__main__":
    main()
