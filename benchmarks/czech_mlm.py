"""The Czech experiment: fine-tuning with the labels alone against fine-tuning taught by a masked language model.

    python benchmarks/czech_mlm.py [--config configs/demo_czech_mlm.yaml] [--seeds 3] [--out runs-czech] [arm ...]

Each arm has its own learning rate, the one of LEARNING_RATES with the lowest dev WER at seed 0; then it is run with every seed.
Finished runs are not run again, so that a stopped experiment goes on. Prints a table of means and standard deviations.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from raykd.config import Config, load_config
from raykd.distillation import distil
from raykd.tracking.history import read_history
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.training.cluster import connect

LEARNING_RATES = (3e-4, 1e-3)
ARMS: dict[str, dict[str, Any]] = {
    "ce": {"recipe": "ce"},
    "code": {"recipe": "mlm_kd", "preset": "code", "lambda_lm": 1e-3},
    "card 0.5": {"recipe": "mlm_kd", "preset": "card", "lambda_lm": 0.5},
    "card 0.8": {"recipe": "mlm_kd", "preset": "card", "lambda_lm": 0.8},
    "card 0.95": {"recipe": "mlm_kd", "preset": "card", "lambda_lm": 0.95},
    "card 0.001": {"recipe": "mlm_kd", "preset": "card", "lambda_lm": 1e-3},
    "card 0.5, mlm temperature 3": {"recipe": "mlm_kd", "preset": "card", "lambda_lm": 0.5, "mlm_temperature": 3.0},
    "card 0.5, every 2nd token masked": {
        "recipe": "mlm_kd",
        "preset": "card",
        "lambda_lm": 0.5,
        "mlm": {"positions": "fast", "passes": 2},
    },
    "card 0.5, word": {"recipe": "mlm_kd", "preset": "card", "lambda_lm": 0.5, "mlm": {"positions": "word"}},
    "card 0.95, word": {"recipe": "mlm_kd", "preset": "card", "lambda_lm": 0.95, "mlm": {"positions": "word"}},
    "card 0.5, fast": {"recipe": "mlm_kd", "preset": "card", "lambda_lm": 0.5, "mlm": {"positions": "fast"}},
    "ce, smoothing 0.1": {"recipe": "ce", "label_smoothing": 0.1},
}
COLUMNS = ("loss", "wer", "cer", "invalid_word_share")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", default=["ce", "code", "card 0.5"])
    parser.add_argument("--config", default="configs/demo_czech_mlm.yaml")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to the config")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="*", default=LEARNING_RATES)
    parser.add_argument("--out", default="runs-czech")
    options = parser.parse_args()
    connect()
    with Progress() as progress:
        rows = {arm: run_arm(arm, options, progress) for arm in options.arms}
    print_table(rows)


def run_arm(arm: str, options: argparse.Namespace, progress: Progress) -> tuple[float, list[dict[str, Any]]]:
    """The arm's learning rate, and metrics.json of each seed at it."""
    tuning = {rate: run_once(arm, rate, 0, options, progress) for rate in options.rates}
    best = min(tuning, key=lambda rate: best_dev_wer(tuning[rate]))
    runs = [run_once(arm, best, seed, options, progress) for seed in range(options.seeds)]
    return best, [run.read_json("metrics.json")["student"] for run in runs]


def run_once(arm: str, rate: float, seed: int, options: argparse.Namespace, progress: Progress) -> RunFolder:
    """The finished run of an arm, a learning rate and a seed."""
    name = f"{arm.replace(',', '').replace(' ', '-')}-lr{rate:g}-seed{seed}"
    done = RunFolder(str(Path(options.out).absolute() / name))
    if done.finished:
        return done
    objective = dict(ARMS[arm])
    config = load_config(options.config, options.set)
    tree = config.model_dump(mode="json")
    if objective["recipe"] == "mlm_kd":
        objective["mlm"] = {**tree["objective"]["mlm"], **objective.get("mlm", {})}
    elif config.evaluation.vocabulary is None:
        tree["evaluation"]["vocabulary"] = str(vocabulary_of(options))
    tree |= {"name": name, "seed": seed, "output_dir": options.out, "objective": objective}
    tree["train"]["lr"] = rate
    tree["tracking"]["log_model"] = False
    progress.say(f"--- {name}")
    return distil(Config.model_validate(tree), False, progress)


def vocabulary_of(options: argparse.Namespace) -> Path:
    """The words of the masked language model's text, which its cached folder holds: the same for all arms."""
    cache = Path(load_config(options.config, options.set).data.cache_dir)
    found = sorted(cache.glob("mlms/*/*/mlm/words.txt.gz"))
    if not found:
        raise SystemExit("run an arm with the masked language model first: its words are what all arms are checked against")
    return found[-1]


def best_dev_wer(run: RunFolder) -> float:
    """Of the checkpoint that became the student."""
    return min(record["wer"] for record in read_history(run.history_path).eval if record["split"] == "dev")


def print_table(rows: dict[str, tuple[float, list[dict[str, Any]]]]) -> None:
    splits = list(next(iter(rows.values()))[1][0]["splits"])
    print("\n| objective | lr | split | " + " | ".join(COLUMNS) + " |\n|---|--:|---|" + "--:|" * len(COLUMNS))
    for arm, (rate, runs) in rows.items():
        for split in splits:
            cells = [spread([run["splits"][split].get(column) for run in runs], column) for column in COLUMNS]
            print(f"| {arm} | {rate:g} | {split} | {' | '.join(cells)} |")


def spread(values: list[float | None], column: str) -> str:
    """Mean and standard deviation over seeds; rates in per cent."""
    present = [value * (1 if column == "loss" else 100) for value in values if value is not None]
    if not present:
        return "-"
    deviation = statistics.stdev(present) if len(present) > 1 else 0.0
    return f"{statistics.mean(present):.3g} ± {deviation:.2g}"


if __name__ == "__main__":
    main()
