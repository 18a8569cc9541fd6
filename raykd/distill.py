"""`python -m raykd.distill --config configs/quickstart.yaml [key=value ...]`: from audio to a measured student."""

from collections.abc import Sequence

from raykd.cli import Parser, run_command
from raykd.config import load_config


def main(arguments: Sequence[str]) -> None:
    """Parse the command line, distil and print the result."""
    parser = Parser(prog="python -m raykd.distill", description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file of the run, such as configs/quickstart.yaml")
    parser.add_argument("--resume", action="store_true", help="go on with the newest unfinished run of this name")
    parser.add_argument("-v", "--verbose", action="store_true", help="show Ray's and DeepSpeed's own output")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change a config key, such as train.lr=1e-4")
    options = parser.parse_intermixed_args(list(arguments))
    config = load_config(options.config, options.overrides)

    # Ray and the models take seconds to import: a mistake in the config is told before that, any other before Ray starts.
    from raykd.preflight import check_run

    check_run(config, options.resume)
    from raykd.distillation import distil
    from raykd.tracking.metrics import Metrics
    from raykd.tracking.mlflow import tracking_uri, ui_command
    from raykd.tracking.progress import Progress
    from raykd.tracking.table import print_result
    from raykd.training.cluster import connect

    connect(options.verbose)
    with Progress() as progress:
        run = distil(config, options.resume, progress)
    store = ui_command(tracking_uri(config)) if config.tracking.mlflow else None
    print_result(Metrics.model_validate(run.read_json("metrics.json")), run, store=store)


if __name__ == "__main__":
    run_command(main)
