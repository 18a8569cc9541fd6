"""`raykd demo-data OUT`: synthetic speech in several languages, as Parquet shards that `data.source: OUT` reads."""

import argparse
from collections.abc import Sequence

import ray

from raykd.cli import Parser
from raykd.config.data import DemoSource
from raykd.config.load import parse
from raykd.data.demo import write_demo_corpus

_HOURS_WORTH_RAY = 5.0


def main(arguments: Sequence[str]) -> None:
    """Write a demo corpus and print what it holds."""
    options = _parse(arguments)
    tree = {
        "hours": options.hours,
        "seed": options.seed,
        "languages": _names(options.languages),
        "kinds": _names(options.kinds),
    }
    source = parse(DemoSource, tree, "demo-data")
    if source.hours >= _HOURS_WORTH_RAY and not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    splits = write_demo_corpus(source, options.out)
    for split, counts in splits.items():
        print(f"{split:10}  {counts['utterances']:8.0f} utterances  {counts['hours']:8.2f} h")
    print(f"speech      {options.out}   (in a config: data.source: {options.out})")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="raykd demo-data",
        description="Make synthetic speech with its transcripts: sentences of small grammars, spoken by eSpeak NG.",
    )
    parser.add_argument("out", metavar="OUT", help="folder to write, local or on any pyarrow filesystem")
    parser.add_argument("--languages", default="cs", help="comma-separated codes, such as cs,pl,uk (default: cs)")
    parser.add_argument("--hours", type=float, default=1.0, help="hours of train, over all languages (default: 1)")
    parser.add_argument("--kinds", default="", help="comma-separated kinds of sentence, such as number,time (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other sentences and voices (default: 0)")
    return parser.parse_args(list(arguments))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    from raykd.cli import run_command

    run_command(main)
