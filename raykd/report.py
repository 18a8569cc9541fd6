"""`python -m raykd.report RUN_OR_SWEEP ...`: the report of a run or a sweep made again, or one of several side by side."""

from collections.abc import Sequence

from raykd import storage
from raykd.cli import Parser, run_command
from raykd.errors import UserError
from raykd.tune import NUMBERS, REPORT, SWEEP, write_findings

_OUT = "side_by_side"


def main(arguments: Sequence[str]) -> None:
    """Write it and say where it is.

    Raises:
        UserError: a folder is neither a run's nor a sweep's.
    """
    parser = Parser(prog="python -m raykd.report", description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="RUN_OR_SWEEP", help="run folders, or folders of sweeps")
    parser.add_argument("--out", help=f"folder for the page; default: the run's or sweep's own, for several {_OUT}/")
    options = parser.parse_intermixed_args(list(arguments))
    folders = [folder.rstrip("/") for folder in options.folders]
    for folder in folders:
        if not any(storage.exists(storage.join(folder, name)) for name in (SWEEP, "config.yaml")):
            raise UserError(f"{folder}: is neither a run folder (config.yaml) nor a sweep's (sweep.yaml)")
    if len(folders) == 1 and not storage.exists(storage.join(folders[0], SWEEP)):
        _of_a_run(folders[0], options.out)
    else:
        _side_by_side(folders, options.out)


def _of_a_run(folder: str, out: str | None) -> None:
    from raykd.tracking.mlm import write_mlm_report
    from raykd.tracking.report import write_report
    from raykd.tracking.run_folder import RunFolder

    run = RunFolder(folder)
    path = storage.join(out, REPORT) if out else run.report_path
    if run.has("mlm") and not run.has("metrics.json"):
        raise UserError(f"{folder}: has no metrics.json; let the run finish first (--resume)")
    (write_mlm_report if run.has("mlm") else write_report)(run, path)
    print(f"report   {path}")


def _side_by_side(folders: Sequence[str], out: str | None) -> None:
    from raykd.tracking.table import print_places, print_tables
    from raykd.tuning.entries import Entry, entries_of_runs, entries_of_sweep
    from raykd.tuning.page import Findings, in_words, ranking
    from raykd.tuning.record import Record

    sweeps = [folder for folder in folders if storage.exists(storage.join(folder, SWEEP))]
    entries: list[Entry]
    if len(folders) == 1:
        entries, name = entries_of_sweep(Record.read(folders[0])), folders[0].rpartition("/")[2]
    else:
        trials = [trial for sweep in sweeps for trial in Record.read(sweep).trials.values()]
        # One that failed before anything was recorded has left no folder.
        of_sweeps = [trial.run for trial in trials if trial.run and trial.folder.has("config.yaml")]
        entries = entries_of_runs([*(folder for folder in folders if folder not in sweeps), *of_sweeps])
        name = ", ".join(folder.rpartition("/")[2] for folder in folders)
    findings = Findings.of(name, entries)
    folder = out or (folders[0] if len(folders) == 1 else _OUT)
    sweep_yaml = storage.read_bytes(storage.join(folders[0], SWEEP)).decode() if len(folders) == 1 else ""
    write_findings(findings, folder, f"python -m raykd.report {' '.join(folders)}", sweep_yaml)
    console = print_tables([ranking(findings)], in_words(findings))
    print_places({"report": storage.join(folder, REPORT), "numbers": storage.join(folder, NUMBERS)}, console)


if __name__ == "__main__":
    run_command(main)
