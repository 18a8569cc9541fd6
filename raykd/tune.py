"""`python -m raykd.tune --config configs/sweep_lambda_lm.yaml [key=value ...]`: many runs of one config, and which to take."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from raykd import storage
from raykd.cli import add_check, run_command, run_parser
from raykd.config import Config
from raykd.config.load import dump_yaml, parse, read_yaml
from raykd.config.tune import SweepConfig
from raykd.errors import RunError, UserError
from raykd.shown import tree_without_secrets

if TYPE_CHECKING:
    from raykd.tracking.parent_run import ParentRun
    from raykd.tuning.page import Findings
    from raykd.tuning.record import Record

SWEEP, REPORT, NUMBERS, BEST = "sweep.yaml", "report.html", "results.json", "best.yaml"
_FREE = {"name", "output_dir", "cache", "keep", "register_as"}
"""Keys that may differ when a sweep goes on. Ray Tune keeps the others' values, such as how many trials run at once."""


def main(arguments: Sequence[str]) -> None:
    """Sweep and tell.

    Raises:
        UserError: a wrong argument or search space, or something that no trial can do without.
        RunError: interrupted, or no trial came to its end.
    """
    parser = run_parser("python -m raykd.tune", __doc__ or "", "configs/sweep_lambda_lm.yaml")
    add_check(parser, "look for mistakes and at a sample of the data that all trials have")
    options = parser.parse_intermixed_args(list(arguments))
    sweep = parse(SweepConfig, read_yaml(options.config), options.config, options.overrides)
    sweep = sweep.model_copy(update={"output_dir": storage.absolute(sweep.output_dir)})
    sweep = _named(sweep, options.resume)
    if sweep.sampler == "tpe" and importlib.util.find_spec("optuna") is None:
        raise UserError(f"{options.config}: sampler: tpe is Optuna's; pip install 'raykd[sweep]', or take random")
    from raykd.tuning.space import Space

    space = Space(sweep, options.config)
    configs = _checked(space, options.config)
    if options.check:
        from raykd.preflight import look_at_run

        print("\n".join(["every value that a trial can have is right", *look_at_run(configs[0])]))
        return
    from raykd.tracking.progress import Progress
    from raykd.training.cluster import connect
    from raykd.tuning.sweep import run_sweep

    connect(options.verbose)
    folder = storage.join(sweep.output_dir, sweep.name)
    storage.write_text(storage.join(folder, SWEEP), dump_yaml(sweep))
    with Progress() as progress:
        record, parent = run_sweep(sweep, space, configs, options.resume, progress)
    command = " ".join(["python -m raykd.tune --config", options.config, *options.overrides])
    _conclude(sweep, configs[0], record, parent, folder, command)


def _named(sweep: SweepConfig, resume: bool) -> SweepConfig:
    """With the name of its folder: that of the newest sweep of this name to go on with, or the next one that is free.

    Raises:
        UserError: there is none to go on with, or it searches something else.
    """
    number = 1
    while storage.exists(storage.join(sweep.output_dir, _numbered(sweep.name, number), SWEEP)):
        number += 1
    if not resume:
        return sweep.model_copy(update={"name": _numbered(sweep.name, number)})
    if number == 1:
        raise UserError(f"output_dir: {sweep.output_dir} has no sweep named {sweep.name} to resume; start it without --resume")
    name = _numbered(sweep.name, number - 1)
    path = storage.join(sweep.output_dir, name, SWEEP)
    before = parse(SweepConfig, read_yaml(path), path).model_dump(mode="json", exclude=_FREE)
    now = tree_without_secrets(sweep.model_dump(mode="json", exclude=_FREE))
    changed = [key for key in now if now[key] != before[key]]
    if changed:
        raise UserError(
            f"{changed[0]}: differs from the sweep to resume ({path}); give the same value, or start a new one without --resume"
        )
    return sweep.model_copy(update={"name": name})


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _checked(space: Any, path: str) -> list[Config]:
    """The configs of all points that are known, once nothing is found wrong with them.

    Raises:
        UserError: a mistake, told with its key.
    """
    from raykd.preflight import check_run, told_of

    configs: list[Config] = space.check()
    for config in configs:
        steps, every = config.train.steps, config.train.eval_every
        if space.sweep.asha is not None and steps is not None and every is not None and every > steps * space.sweep.asha.grace:
            raise UserError(
                f"{path}: asha.grace: trials are compared from step {steps * space.sweep.asha.grace:.0f} on, but "
                f"train.eval_every scores them first at step {every}; lower it, or raise asha.grace"
            )
    seen = set()
    for config in configs:
        key = json.dumps(config.model_dump(mode="json", include={"data", "teacher", "student", "objective"}), sort_keys=True)
        if key not in seen:
            seen.add(key)
            told_of(path, partial(check_run, config.model_copy(update={"output_dir": space.sweep.output_dir}), resume=False))
    return configs


def _conclude(
    sweep: SweepConfig, config: Config, record: "Record", parent: "ParentRun | None", folder: str, command: str
) -> None:
    from raykd.tracking.mlflow import tracking_uri, ui_command
    from raykd.tracking.table import print_places, print_tables
    from raykd.tuning.entries import entries_of_sweep
    from raykd.tuning.page import Findings, in_words, ranking

    findings = Findings.of(sweep.name, entries_of_sweep(record))
    texts = write_findings(findings, folder, command, dump_yaml(sweep))
    best = findings.best
    if parent is not None:
        if best is not None:
            _log_best(sweep, config, best.run, parent)
        values = {"best/dev_wer": best.dev, "best/test_wer": best.test} if best is not None else {}
        numbers = {key: value for key, value in values.items() if value is not None}
        parent.finish(numbers, texts, "FINISHED" if best is not None else "FAILED")
    console = print_tables([ranking(findings)], in_words(findings))
    places: dict[str, str | None] = {
        "report": storage.join(folder, REPORT),
        "best": storage.join(folder, BEST) if best else None,
        "MLflow": ui_command(tracking_uri(config)) if config.tracking.mlflow else None,
    }
    print_places(places, console)
    if best is None:
        reasons = list(dict.fromkeys(entry.reason for entry in findings.entries if entry.reason))
        raise RunError(f"{folder}: no trial came to its end: {'; '.join(reasons[:3])}")


def write_findings(findings: "Findings", folder: str, command: str, sweep_yaml: str = "") -> Mapping[str, str]:
    """Write the report, the numbers and the best config into a folder; their texts by name."""
    from raykd.tuning.page import best_yaml, json_of, render

    texts = {REPORT: render(findings, command, sweep_yaml), NUMBERS: json_of(findings)}
    if findings.best is not None:
        texts[BEST] = best_yaml(findings.best)
    for name, text in texts.items():
        storage.write_text(storage.join(folder, name), text)
    return texts


def _log_best(sweep: SweepConfig, config: Config, run: str, parent: "ParentRun") -> None:
    """The best student becomes a model in MLflow, of its own run."""
    from raykd.config import load_written_config
    from raykd.tracking.mlflow import MlflowTracker
    from raykd.tracking.run_folder import RunFolder

    best = RunFolder(run)
    if config.tracking.log_model or sweep.register_as is not None:
        tracker = MlflowTracker(load_written_config(best.config_path), best)
        tracker.log_student()
        tracker.close()
    parent.mark_best(best, sweep.register_as)


if __name__ == "__main__":
    run_command(main)
