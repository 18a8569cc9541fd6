"""What a sweep saves: its trials against as many separate runs with the teacher online. Same machine, settings and steps.

    python benchmarks/sweep.py [--config configs/sweep_demo_lr.yaml] [--steps 120] [--trials 8] [--out /tmp/sweep_benchmark]

The sweep's config must have `teacher: {kind: cached}`; the separate runs have the same points with the teacher loaded, one
after the other, as `python -m raykd.distill` in processes of their own, each with the whole machine. What both need beforehand
(the demo's speech, the trained teacher) is made first and not counted; keeping the teacher's answers is the sweep's own cost
and counted. Wall time, start-up and evaluation included; no trial is stopped early.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from raykd.config.load import parse, read_yaml, set_key
from raykd.config.tune import SweepConfig
from raykd.tuning.space import Space

H200_STEP_MS = {"encoder": 425.0, "teacher's decoder": 89.0, "student and objective": 124.0, "rest": 84.0}
"""Of a step of 64 windows, large-v2 to 32+2, bf16, measured on one H200 (722 ms)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/sweep_demo_lr.yaml")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--out", default="/tmp/sweep_benchmark")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    changed = {
        "output_dir": str(out),
        "asha": "null",
        "sampler": "random",
        "trials": str(options.trials),
        "fixed.train.steps": str(options.steps),
        "fixed.train.eval_every": str(options.steps),
        "fixed.train.warmup_steps": str(min(20, options.steps // 4)),
        "fixed.data.cache_dir": str(out / "cache"),
        "fixed.tracking.mlflow": "false",
    }
    overrides = [f"{key}={value}" for key, value in changed.items()]
    sweep = parse(SweepConfig, read_yaml(options.config), options.config, overrides)
    space = Space(sweep, options.config)
    configs = [online(space, coded, number, out) for number, coded in enumerate(space.points())]
    run("raykd.distill", "--config", str(configs[0]), "--check")  # speech and teacher
    separate = [timed("raykd.distill", "--config", str(config)) for config in configs]
    swept = timed("raykd.tune", "--config", options.config, *overrides)
    table = Table("", "wall time, s", "a trial, s", "ratio", box=MARKDOWN)
    rows = [(f"{len(configs)} separate runs, teacher online", sum(separate)), ("one sweep", swept)]
    for name, seconds in rows:
        table.add_row(name, f"{seconds:.0f}", f"{seconds / len(configs):.1f}", f"{seconds / sum(separate):.2f}")
    Console(width=140).print(table)
    print_large_v2(len(configs))


def online(space: Space, coded: dict[str, Any], number: int, out: Path) -> Path:
    """The config of a point as a file, with the teacher loaded."""
    config = space.config(space.decoded(coded), f"separate-{number}", 0)
    assert config.teacher is not None
    tree = config.model_dump(mode="json", exclude_unset=True)
    set_key(tree, "teacher", {"model": str(Path(config.teacher.model).resolve())}, "")
    path = out / f"separate-{number}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def timed(module: str, *arguments: str) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    run(module, *arguments)
    return time.perf_counter() - began


def run(module: str, *arguments: str) -> None:
    print("+", module, *arguments, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(done.stdout)


def print_large_v2(trials: int) -> None:
    """By arithmetic from parts that were measured; nothing here was run."""
    parts = H200_STEP_MS
    whole = sum(parts.values())
    kept = {
        "likeliest tokens kept": whole - parts["teacher's decoder"],
        "likeliest tokens and encoder states kept": whole - parts["teacher's decoder"] - parts["encoder"],
    }
    print(f"large-v2 to 32+2 on one H200, by arithmetic from a measured step of {whole:.0f} ms of 64 windows:")
    for name, rest in kept.items():
        # Keeping the answers is one pass of the teacher, about an epoch of its share of the step.
        print(
            f"  {name}: {rest:.0f} ms a step, {rest / whole:.2f} of online; {trials} trials of 10 epochs, the keeping counted: "
            f"{(trials * 10 * rest + whole - parts['student and objective']) / (trials * 10 * whole):.2f}"
        )


if __name__ == "__main__":
    main()
