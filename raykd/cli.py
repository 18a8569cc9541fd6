"""The `raykd` verbs, and how every command ends: 0 done, 1 failed, 2 a mistake the user can mend."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NoReturn

from raykd import __version__
from raykd.errors import RunError, UserError
from raykd.shown import printable

VERBS = {
    "distil": ("raykd.distill", "distil a teacher into a student: --config FILE [key=value ...]"),
    "label": ("raykd.label", "have the teacher transcribe the data, or keep its answers for training: --config FILE"),
    "train-mlm": ("raykd.train_mlm", "train a masked language model that teaches: --config FILE [key=value ...]"),
    "export": ("raykd.export", "a student for CTranslate2, whisper.cpp or transformers, tried there: RUN --format FORMAT"),
    "compare": (
        "raykd.compare",
        "one table of methods, over a config of many runs or over finished runs: --config FILE | RUN RUN",
    ),
    "tune": ("raykd.tune", "many runs of one config with other values of some keys, and which to take: --config FILE"),
    "report": ("raykd.report", "the report of a run or sweep made again, or of several runs side by side: RUN_OR_SWEEP ..."),
    "evaluate": ("raykd.evaluate", "word and character error rates and speed of a Whisper model"),
    "demo-data": ("raykd.demo_data", "make synthetic speech to try things on"),
    "config": ("raykd.config_help", "what a key of the config is for: [KEY]"),
}


_RAYS_WORRIES = (
    r".*(worker processes have been started on node|A worker died or was killed while executing|retries remaining"
    r"|Raylet is terminated|has been marked dead)"
)
"""What Ray's core says on the terminal past all settings, and nobody needs: a run has a dozen processes that mostly wait, a
task whose process was lost is done again, and what became of training or of Ray raykd tells itself."""


class Parser(argparse.ArgumentParser):
    """Arguments of a command; a mistake in them is told like any other, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the UserError."""
        raise UserError(f"{message}; {self.prog} --help tells more")


def run_parser(prog: str, description: str, example: str) -> Parser:
    """Arguments of a command that runs a config."""
    parser = Parser(prog=prog, description=description)
    parser.add_argument("--config", required=True, help=f"YAML file of the run, such as {example}")
    parser.add_argument("--resume", action="store_true", help="go on with the newest unfinished run of this name")
    parser.add_argument("-v", "--verbose", action="store_true", help="show Ray's and DeepSpeed's own output")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change a config key, such as train.lr=1e-4")
    return parser


def add_check(made: argparse.ArgumentParser, what: str) -> None:
    """`--check`, which every command that works for long has."""
    made.add_argument("--check", action="store_true", help=f"{what}, and stop: status 0, or 2 with what to mend")


def run_command(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> None:
    """Run a command's main and exit: user mistakes are printed as they are, without a traceback, and exit with status 2."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _RAYS_WORRIES)  # read when Ray is imported, which is later
    try:
        main(sys.argv[1:] if arguments is None else arguments)
    except RunError as error:
        print(f"raykd: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        mistake = _user_error(error)
        if mistake is None and _is_rays(error):
            reason = printable(" ".join(str(error).split())[:300])
            print(f"raykd: Ray stopped working ({reason}); what was done is kept, go on with --resume", file=sys.stderr)
            sys.exit(1)
        if mistake is None:
            raise
        print("\n".join(f"raykd: {line}" for line in str(mistake).splitlines()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "raykd: interrupted; what was done is kept: training goes on with --resume, labelling with the same command",
            file=sys.stderr,
        )
        sys.exit(130)


def main() -> None:
    """`raykd VERB ...`: the same commands as `python -m raykd.VERB`."""
    verb, *arguments = sys.argv[1:] or [""]
    if verb in VERBS:
        run_command(importlib.import_module(VERBS[verb][0]).main, arguments)
    elif verb in {"-h", "--help"}:
        print(_usage())
    elif verb == "--version":
        print(f"raykd {__version__}")
    else:
        near = get_close_matches(verb, VERBS, n=1)
        if verb:
            print(f"raykd: {verb}: unknown verb" + (f"; did you mean {near[0]}?" if near else ""), file=sys.stderr)
        print(_usage(), file=sys.stderr)
        sys.exit(2)


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join(["usage: raykd VERB ...   (raykd VERB --help tells the rest)", *lines])


def _is_rays(error: Exception) -> bool:
    """Whether a part of Ray was lost: a node, its store, an actor. A fault in what a task computes is not Ray's."""
    names = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("ray.")}
    return bool(names & {"RayError", "RaySystemError", "RayActorError", "RpcError"}) and "RayTaskError" not in names


def _user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake in an error or below it: Ray wraps what a task raised, as `cause`, in an error of its own."""
    if error is None:
        return None
    mistake = _user_error(getattr(error, "cause", None))
    return mistake or (error if isinstance(error, UserError) else _user_error(error.__cause__))


if __name__ == "__main__":
    main()
