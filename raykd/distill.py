"""`python -m raykd.distill --config configs/quickstart.yaml [key=value ...]`: from audio to a measured student."""

from collections.abc import Sequence

from raykd.cli import Parser, run_command, run_parser
from raykd.config import load_config
from raykd.errors import UserError


def parser() -> Parser:
    """The arguments."""
    made = run_parser("python -m raykd.distill", __doc__ or "", "configs/quickstart.yaml")
    made.add_argument(
        "--parts", action="append", default=[], metavar="FILE", help="a .py file with parts of your own; again for more"
    )
    looks = made.add_mutually_exclusive_group()
    looks.add_argument(
        "--check",
        action="store_true",
        help="look at a sample of the data, say what the run will need and can reach, measure a few steps, and stop",
    )
    looks.add_argument(
        "--profile",
        type=int,
        metavar="STEPS",
        help="say what each part of so many steps takes, write PyTorch's trace of them, and stop",
    )
    return made


def main(arguments: Sequence[str]) -> None:
    """Parse the command line, distil and print the result."""
    options = parser().parse_intermixed_args(list(arguments))
    config = load_config(options.config, options.overrides, options.parts)

    # Ray and the models take seconds to import: a mistake in the config is told before that, any other before Ray starts.
    if options.resume and (options.check or options.profile):
        asked = "--check" if options.check else "--profile"
        raise UserError(f"{asked} looks at a run before it begins; leave --resume out")
    if options.profile is not None and options.profile < 1:
        raise UserError(f"--profile: must be at least 1 step (got {options.profile})")
    from raykd.preflight import check_run, look_at_run

    check_run(config, options.resume)
    if options.check:
        print("\n".join(look_at_run(config)), flush=True)
    from raykd.distillation import distil, forecast, profile
    from raykd.tracking.metrics import Metrics
    from raykd.tracking.mlflow import tracking_uri, ui_command
    from raykd.tracking.progress import Progress
    from raykd.tracking.table import print_result, print_tables
    from raykd.training.cluster import connect

    connect(options.verbose)
    with Progress() as progress:
        if options.check:
            progress.say(forecast(config, progress))
            return
        if options.profile:
            table, trace = profile(config, options.profile, progress)
            print_tables([table], [table.note, f"trace  {trace}"])
            return
        run = distil(config, options.resume, progress)
    store = ui_command(tracking_uri(config)) if config.tracking.mlflow else None
    print_result(Metrics.model_validate(run.read_json("metrics.json")), run, store=store)


if __name__ == "__main__":
    run_command(main)
