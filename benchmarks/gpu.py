"""All that raykd wants to know of a GPU, in one command of under 8 minutes, as tables.

    python benchmarks/gpu.py                  # on a machine with a GPU
    python benchmarks/gpu.py --toy            # the same path in small, on a CPU: it shows that everything runs, and no number

Each measurement is a process of its own with a limit of its own; one that fails or takes too long is told, and the next one
begins. Aims, on one H200: 180 windows/s online (large-v2 to 32 + 2 layers, 100 label tokens, bfloat16), 110 on one H100.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Measurement:
    """A script of this folder."""

    what: str
    script: str
    arguments: tuple[str, ...]
    toy: tuple[str, ...]
    limit_s: int


MEASUREMENTS = (
    Measurement(
        "A step of large-v2's shape, online, with the encoder as it is and compiled: the aim",
        "training_step.py",
        ("--methods", "kd", "--hand", "--precision", "bfloat16", "--compile"),
        ("--shape", "tiny", "--batch-size", "2", "--tokens", "8", "--steps", "1", "--methods", "kd", "--hand", "--compile"),
        150,
    ),
    Measurement(
        "The same with short labels",
        "training_step.py",
        ("--methods", "kd", "--tokens", "32"),
        ("--shape", "tiny", "--batch-size", "2", "--tokens", "4", "--steps", "1", "--methods", "kd"),
        90,
    ),
    Measurement(
        "Methods whose teacher learns, or that ask more of a step",
        "training_step.py",
        ("--methods", "okd", "akd", "ema", "--steps", "4"),
        ("--shape", "tiny", "--batch-size", "2", "--tokens", "8", "--steps", "1", "--methods", "okd", "real_time"),
        120,
    ),
    Measurement(
        "A step of base's shape",
        "training_step.py",
        ("--shape", "base", "--batch-size", "32", "--methods", "kd", "dr_kd", "okd", "real_time", "imitkd"),
        ("--shape", "tiny", "--batch-size", "2", "--tokens", "8", "--steps", "1", "--methods", "dr_kd"),
        60,
    ),
)


def run(one: Measurement, toy: bool) -> None:
    """The output of one; why there is none."""
    print(f"\n## {one.what}\n", flush=True)
    command = [sys.executable, str(HERE / one.script), *(one.toy if toy else one.arguments)]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=one.limit_s)
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        print(f"{said}\nstopped after {one.limit_s} s", flush=True)
        return
    print(done.stdout, flush=True)
    if done.returncode:
        print(f"failed: {' '.join(done.stderr.strip().splitlines()[-3:])}", flush=True)
    print(f"({time.monotonic() - began:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="in small, on a CPU")
    options = parser.parse_args()
    for one in MEASUREMENTS:
        run(one, options.toy)


if __name__ == "__main__":
    main()
