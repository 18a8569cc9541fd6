"""FastWhisper's parts on the demo: a teacher of another domain, and what each reading of ASKD makes of it.

    python benchmarks/askd.py [--variants ce kd ...] [--seeds 0 1 2] [--out FOLDER]

Runs `configs/demo_askd.yaml` with each objective and seed, one after the other (a finished one is not run again), scores each
student on the student's domain (numbers), on the teacher's (prices and times) and beyond both, and prints mean and range over
seeds: word error rate, inserted words, repeated sequences of five words. About three minutes a run on two cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from raykd.config import load_config

CONFIG = "configs/demo_askd.yaml"
TEACHERS_DOMAIN = "{kind: demo, languages: [cs], hours: 1.0, kinds: [price, time]}"
_BLEND = "decay: linear, switch: 1.0, rise: linear, self_teacher: {kind: ema, decay: 0.98}"
VARIANTS = {
    "ce": "{recipe: ce}",
    "kd": "{recipe: askd, decay: constant, beta: 0}",
    "decay": "{recipe: askd, beta: 0}",
    "self": "{recipe: askd, alpha: 0}",
    "askd": "{recipe: askd}",
    "askd, blend": f"{{recipe: askd, {_BLEND}}}",
    "askd, trust by token": "{recipe: askd, trust: token}",
    "askd, trust by sentence": "{recipe: askd, trust: sentence}",
    "askd, trust in batches": "{recipe: askd, trust: batches}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", default="runs/askd")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for seed in options.seeds:
        for variant in options.variants:
            run = trained(variant, seed, Path(options.out), options.overrides)
            found.setdefault(variant, []).append(scores(run, "student"))
            found["teacher"] = [scores(run, "teacher")]
            print(f"{variant}, seed {seed}: {found[variant][-1]}", flush=True)
    Console(width=160).print(table_of(found))


def trained(variant: str, seed: int, out: Path, overrides: Sequence[str]) -> Path:
    """The finished run."""
    name = f"{variant.replace(', ', '-').replace(' ', '-')}-{seed}"
    run = out / name
    if not (run / "metrics.json").exists():
        settings = [f"objective={VARIANTS[variant]}", f"name={name}", f"output_dir={out}", f"seed={seed}", *overrides]
        raykd("distill", "--config", CONFIG, *settings, "evaluation.speed_utterances=4", "tracking.mlflow=false")
    return run


def scores(run: Path, model: str) -> dict[str, float]:
    """Of a run's student or teacher."""
    splits = json.loads((run / "metrics.json").read_text())[model]["splits"]
    theirs = run / f"teachers_domain_{model}" / "test.json"
    if not theirs.exists():
        folder = run / "student" if model == "student" else teacher_of(run)
        raykd("evaluate", "--model", str(folder), "--data", TEACHERS_DOMAIN, "--split", "test", "--out", str(theirs.parent))
    return {
        **{"WER": splits["test"]["wer"], "WER, teacher's domain": json.loads(theirs.read_text())["wer"]},
        **{"WER, beyond both": splits["test_ood"]["wer"], "insertions": splits["test"]["insertions"]},
        "repeated 5-grams": sum(split["repeated_5grams"] for split in splits.values()),
    }


def teacher_of(run: Path) -> Path:
    """The folder of the teacher that a run was taught by, which is in its cache."""
    config = load_config(str(run / "config.yaml"))
    (found,) = Path(config.data.cache_dir, "teachers").glob("demo-flawed-teacher*/student")
    return found


def raykd(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", f"raykd.{arguments[0]}", *arguments[1:]], check=True, stdout=subprocess.DEVNULL)


def table_of(found: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(box=MARKDOWN)
    names = list(next(iter(found.values()))[0])
    for name in ("objective", *names):
        table.add_column(name)
    for variant, rows in found.items():
        cells = [[row[name] for row in rows if name in row] for name in names]
        table.add_row(variant, *(_cell(name, values) for name, values in zip(names, cells, strict=True)))
    return table


def _cell(name: str, values: Sequence[float]) -> str:
    scale, unit = (1, "") if name in {"insertions", "repeated 5-grams"} else (100, " %")
    if not values:
        return ""
    mean, half = statistics.mean(values), (max(values) - min(values)) / 2
    return f"{scale * mean:.2f}{unit}" + (f" ± {scale * half:.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
