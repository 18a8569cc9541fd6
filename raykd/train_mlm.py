"""`python -m raykd.train_mlm --config configs/mlm_czech.yaml [key=value ...]`: from text to a masked language model."""

from collections.abc import Sequence

from raykd.cli import add_check, run_command, run_parser
from raykd.config import load_mlm_config


def main(arguments: Sequence[str]) -> None:
    """Parse the command line, train and print the result."""
    parser = run_parser("python -m raykd.train_mlm", __doc__ or "", "configs/mlm_czech.yaml")
    add_check(parser, "look for mistakes and at a sample of the text")
    options = parser.parse_intermixed_args(list(arguments))
    config = load_mlm_config(options.config, options.overrides)

    # Ray and the models take seconds to import: a mistake in the config is told before that, any other before Ray starts.
    from raykd.preflight import check_mlm_run, look_at_mlm_run

    check_mlm_run(config, options.resume)
    if options.check:
        print("\n".join(look_at_mlm_run(config)))
        return
    from raykd.mlm_training import train_mlm
    from raykd.tracking.mlflow import tracking_uri, ui_command
    from raykd.tracking.mlm import MlmMetrics, print_mlm_result
    from raykd.tracking.progress import Progress
    from raykd.training.cluster import connect

    connect(options.verbose)
    with Progress() as progress:
        run = train_mlm(config, options.resume, progress)
    store = ui_command(tracking_uri(config)) if config.tracking.mlflow else None
    print_mlm_result(MlmMetrics.model_validate(run.read_json("metrics.json")), run, store=store)


if __name__ == "__main__":
    run_command(main)
