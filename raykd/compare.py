"""`python -m raykd.compare --config C [key=value ...]`, or `RUN RUN ...`: one table of methods, of configs or finished runs."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from raykd import storage
from raykd.cli import Parser, add_check, run_command
from raykd.config import load_written_config
from raykd.config.compare import CompareConfig
from raykd.config.load import parse, read_yaml
from raykd.config.yaml_text import to_yaml
from raykd.errors import RunError, UserError

if TYPE_CHECKING:
    from raykd.comparing.outcome import Job
    from raykd.comparing.tables import Results
    from raykd.tracking.parent_run import ParentRun

_EXAMPLES = """examples:
  python -m raykd.compare --config configs/demo_distilwhisper.yaml
  python -m raykd.compare --config configs/demo_distilwhisper.yaml 'seeds=[0]'
  python -m raykd.compare runs/kd runs/askd runs/askd-2 --out comparisons/askd

With --config each method is trained in each setting with each seed, as `python -m raykd.distill` would, and scored on the same
speech; the same command again goes on where it was stopped. Runs given by their folders are taken as they are: those of one
config that differ in nothing but the seed are one method."""
PAGE, NUMBERS, MARKDOWN = "comparison.html", "comparison.json", "comparison.md"


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, and tell.

    Raises:
        UserError: a wrong argument, or a config or run that cannot be used.
        RunError: some runs came to no end; the table has the others.
    """
    options = _parse(arguments)
    if bool(options.config) == bool(options.runs):
        raise UserError("give --config FILE or the folders of finished runs, one of the two; --help tells more")
    if options.resamples < 1:
        raise UserError(f"--resamples: must be 1 or more (got {options.resamples})")
    if options.config:
        _compare_config(options)
    elif options.check:
        raise UserError("--check: finished runs need none; give it with --config")
    else:
        _compare_runs(options)


def _compare_config(options: argparse.Namespace) -> None:
    path = options.config
    overrides = list(options.arguments)
    compare = parse(CompareConfig, read_yaml(path), path, overrides)
    compare = compare.model_copy(update={"output_dir": storage.absolute(compare.output_dir)})
    from raykd.comparing.outcome import Outcome
    from raykd.comparing.page import metric_values
    from raykd.comparing.runs import Comparison, jobs_of
    from raykd.comparing.tables import Results
    from raykd.tracking.mlflow import tracking_uri, ui_command
    from raykd.tracking.progress import Progress
    from raykd.training.cluster import connect

    jobs = jobs_of(compare, path)
    _check(compare, jobs, path)
    if options.check:
        from raykd.preflight import look_at_run

        print("\n".join([f"{len(jobs)} runs are known and right", *look_at_run(jobs[0].config)]))
        return
    connect(options.verbose)
    folder = storage.join(compare.output_dir, compare.name)
    storage.write_text(storage.join(folder, "compare.yaml"), to_yaml(compare.model_dump(mode="json")))
    parent = _parent_run(compare, jobs[0], folder)
    outcomes: list[Outcome] = []
    failed: list[tuple[str, str]] = []
    command = " ".join(["python -m raykd.compare --config", path, *overrides])
    results = Results.of((), None, compare.resamples)
    timed_with = next((job.method for job in jobs if job.model is not None), None)
    texts: dict[str, str] = {}
    status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    try:
        with Progress() as progress:
            for outcome in Comparison(compare, jobs, progress, parent.run_id if parent else None).outcomes():
                if isinstance(outcome, Outcome):
                    outcomes.append(outcome)
                else:
                    failed.append((outcome[0].config.name, outcome[1]))
                    progress.say(f"{outcome[0].config.name} came to no end: {outcome[1]}")
                results = Results.of(outcomes, compare.against, compare.resamples, failed, timed_with)
                texts = _write(results, compare.name, folder, command, compare)
        status = "FAILED" if failed else "FINISHED"
    finally:
        if parent:
            parent.finish(metric_values(results), texts, status)
    tracking = jobs[0].config.tracking
    _tell(results, folder, ui_command(tracking_uri(jobs[0].config)) if tracking.mlflow else None)
    if failed:
        raise RunError(f"{len(failed)} of {len(jobs)} runs came to no end; the same command tries them again")


def _check(compare: CompareConfig, jobs: "Sequence[Job]", path: str) -> None:
    """Mistakes of every method, setting and test are told before the first is run."""
    from raykd.preflight import check_run, check_sources, told_of

    for name, test in compare.tests.items():
        told_of(f"{path}: tests.{name}", partial(check_sources, test.data))

    seen = set()
    for job in jobs:
        if job.model is None and (job.method, job.setting) not in seen:
            seen.add((job.method, job.setting))
            where = ", ".join(filter(None, (job.method, job.setting)))
            told_of(f"{path}: {where}", partial(check_run, job.config, resume=False))


def _parent_run(compare: CompareConfig, job: "Job", folder: str) -> "ParentRun | None":
    from raykd.tracking.parent_run import parent_run

    params = {"methods": ", ".join(compare.methods), "settings": ", ".join(compare.settings), "seeds": str(list(compare.seeds))}
    return parent_run(job.config, folder, compare.name, "comparison", params)


def _write(results: "Results", name: str, folder: str, command: str, compare: CompareConfig | None) -> dict[str, str]:
    """The files of a comparison, by name."""
    from raykd.comparing.page import json_of, render
    from raykd.comparing.tables import all_tables, as_markdown

    config_yaml = to_yaml(compare.model_dump(mode="json", exclude_defaults=True)) if compare else ""
    texts = {
        PAGE: render(name, results, command, config_yaml),
        NUMBERS: json.dumps(json_of(results), indent=2, ensure_ascii=False) + "\n",
        MARKDOWN: "\n".join(as_markdown(table) for table in all_tables(results)),
    }
    for file, text in texts.items():
        storage.write_text(storage.join(folder, file), text)
    return texts


def _compare_runs(options: argparse.Namespace) -> None:
    from raykd.comparing.outcome import Job, outcome_of
    from raykd.comparing.tables import Results
    from raykd.tracking.run_folder import RunFolder

    outcomes = []
    names: dict[str, str] = {}
    for folder in options.runs:
        run = RunFolder.given(folder)
        config = load_written_config(run.config_path)
        alike = json.dumps(config.model_dump(mode="json", exclude={"name", "seed", "output_dir", "tracking"}), sort_keys=True)
        name = names.setdefault(alike, run.name)
        outcomes.append(outcome_of(run, Job(name, "", config.seed, config)))
    if options.against is not None and options.against not in names.values():
        raise UserError(f"--against: no run is called {options.against} (there are {', '.join(dict.fromkeys(names.values()))})")
    results = Results.of(outcomes, options.against, options.resamples)
    if options.out:
        _write(results, options.out.rstrip("/").rsplit("/", 1)[-1], options.out, "python -m raykd.compare ...", None)
    _tell(results, options.out, None)


def _tell(results: "Results", folder: str | None, store: str | None) -> None:
    from raykd.comparing.page import in_words
    from raykd.comparing.tables import all_tables
    from raykd.tracking.table import print_places, print_tables

    console = print_tables(all_tables(results), in_words(results))
    if folder:
        print_places({"page": storage.join(folder, PAGE), "numbers": storage.join(folder, NUMBERS), "MLflow": store}, console)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m raykd.compare",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="YAML file of a comparison, such as configs/demo_distilwhisper.yaml")
    parser.add_argument("--out", help="of runs: folder for the page and the numbers")
    parser.add_argument("--against", help="of runs: the one that the others are tested against; default: the first")
    parser.add_argument("--resamples", type=int, default=2000, help="of runs: of the bootstrap (default 2000)")
    add_check(parser, "with --config: look for mistakes and at a sample of the data that the first run has")
    parser.add_argument("-v", "--verbose", action="store_true", help="show Ray's and DeepSpeed's own output")
    parser.add_argument("arguments", nargs="*", metavar="RUN | key=value", help="run folders, or with --config what to change")
    options = parser.parse_intermixed_args(list(arguments))
    options.runs = [] if options.config else options.arguments
    return options


if __name__ == "__main__":
    run_command(main)
