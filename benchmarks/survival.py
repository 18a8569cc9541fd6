"""Kills a part of a run at a random moment, goes on with --resume, and looks whether anything was lost.

    python benchmarks/survival.py --kills 20 --seed 1 [--out /tmp/survival]

A small distillation on demo speech (two workers, ids of all batches recorded) is run once undisturbed. Then, `--kills` times,
in turn: a training worker, the driver, the raylet, Ray's head process (GCS), a data task, the mailbox, an evaluation, is killed
with SIGKILL at a moment drawn from the length of the undisturbed run; a run that did not end by itself is given --resume until
it does. For each: whether the last step's loss is that of the undisturbed run, whether every utterance of each epoch counts
once in the final weights, and whether processes are left behind.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from raykd.tracking.history import read_history

TARGETS = {
    "training worker": ("RayTrainWorker",),
    "driver": (),
    "raylet": ("raylet/raylet",),
    "head process": ("gcs_server",),
    "data task": ("_Tasks", "_read", "MapBatches", "ReadTasks", "ray::Map", "ray::Read"),
    "mailbox": ("_Box",),
    "evaluation": ("_recognise",),
}
CONFIG: dict[str, Any] = {
    "data": {"source": {"kind": "demo", "languages": ["cs"], "hours": 0.05, "kinds": ["number"]}},
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
    "train": {"steps": 24, "batch_size": 8, "lr": 1e-3, "eval_every": 8, "checkpoint_every": 4, "record_ids": True},
    "evaluation": {"batch_size": 8, "max_new_tokens": 8},
    "tracking": {"mlflow": False},
}
LONGEST_S = 400
MOST_STARTS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="/tmp/survival")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    draws = random.Random(options.seed)
    undisturbed(out, "warm-up")
    reference, seconds = undisturbed(out, "undisturbed")
    expected = outcome(reference)
    table = Table("", "killed", "after", "runs", "loss as undisturbed", "every id once", "left behind", box=MARKDOWN)
    good = 0
    for number in range(options.kills):
        target = list(TARGETS)[number % len(TARGETS)]
        moment = draws.uniform(0.2, 0.95) * seconds
        name = f"kill-{number:02d}"
        folder, runs, hit = killed(out, name, target, moment)
        found = outcome(folder)
        left = [process.name() for process in others()]
        same = found is not None and expected is not None and abs(found[0] - expected[0]) <= 1e-5 * abs(expected[0])
        once = found is not None and expected is not None and found[1] == expected[1]
        good += same and once and not left
        what = target if hit else f"{target} (was not there)"
        table.add_row(str(number + 1), what, f"{moment:.0f} s", str(runs), str(same), str(once), ", ".join(left) or "nothing")
        print(
            f"{number + 1}/{options.kills} {what} after {moment:.0f} s: {'good' if same and once and not left else 'BAD'}",
            flush=True,
        )
        for process in others():
            process.kill()
    Console(width=140).print(table)
    print(f"{good} of {options.kills} went on as if nothing had happened")


def killed(out: Path, name: str, target: str, moment: float) -> tuple[Path, int, bool]:
    """A run whose part is killed; its folder, how often it was started, and whether there was such a part."""
    process = started(out, name)
    deadline = time.monotonic() + moment
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    hit = False
    if process.poll() is None:
        hit = kill(process, target)
    runs = 1
    while not ended(process, out, name):
        runs += 1
        if runs > MOST_STARTS:
            break
        process = started(out, name, "--resume")
    return out / "runs" / name, runs, hit


def kill(process: "subprocess.Popen[bytes]", target: str) -> bool:
    if target == "driver":
        process.kill()
        return True
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline()) or child.name()
        except psutil.Error:
            continue
        if any(mark in line for mark in TARGETS[target]):
            child.kill()
            return True
    return False


def ended(process: "subprocess.Popen[bytes]", out: Path, name: str) -> bool:
    """Wait for a process; whether its run is finished."""
    try:
        process.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(3)
    return (out / "runs" / name / "report.html").exists()


def undisturbed(out: Path, name: str) -> tuple[Path, float]:
    """A run from its start to its end; its folder and seconds."""
    began = time.monotonic()
    process = started(out, name)
    if not ended(process, out, name):
        sys.exit((out / f"{name}.log").read_text())
    return out / "runs" / name, time.monotonic() - began


def started(out: Path, name: str, *more: str) -> "subprocess.Popen[bytes]":
    tree = {**CONFIG, "name": name, "output_dir": str(out / "runs")}
    tree["data"] = {**CONFIG["data"], "cache_dir": str(out / "cache")}
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "raykd.distill", "--config", str(path), *more]
    log = (out / f"{name}.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def outcome(folder: Path) -> tuple[float, Counter[tuple[int, str]]] | None:
    """The last step's loss, and how often each (epoch, id) counts in the final weights: of a step that was done again the last
    time does."""
    steps = read_history(str(folder / "history.jsonl")).train
    if not steps:
        return None
    last: dict[tuple[int, str], tuple[float, Any]] = {}
    for file in sorted((folder / "trained_ids").glob("*.jsonl"), key=lambda one: one.stat().st_mtime):
        rank = file.name.split("-pid-")[0]
        for number, row in enumerate(map(json.loads, file.read_text().splitlines())):
            last[row["step"], rank] = (file.stat().st_mtime + number * 1e-9, row)
    counts = Counter((row["epoch"], one) for _, row in last.values() for one in row["ids"])
    return steps[-1]["loss"], counts


def others() -> Iterator[psutil.Process]:
    """Processes of Ray that nobody waits for."""
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "raylet/raylet" in line or "gcs_server" in line or line.startswith("ray::"):
            yield process


if __name__ == "__main__":
    main()
