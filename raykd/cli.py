"""The `raykd` verbs, and how every command ends: 0 done, 1 failed, 2 a mistake the user can mend."""

import importlib
import sys
from collections.abc import Callable, Sequence

from raykd.errors import UserError

VERBS = {
    "distil": "raykd.distill",
    "evaluate": "raykd.evaluate",
    "demo-data": "raykd.demo_data",
}


def run_command(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> None:
    """Run a command's main and exit: user mistakes are printed as they are, without a traceback, and exit with status 2."""
    try:
        main(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"raykd: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("raykd: interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    """`raykd VERB ...`: the same commands as `python -m raykd.VERB`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in VERBS:
        known = arguments and arguments[0] in {"-h", "--help"}
        print(f"usage: raykd {{{','.join(VERBS)}}} ...   (raykd VERB --help tells the rest)", file=sys.stdout if known else sys.stderr)
        sys.exit(0 if known else 2)
    run_command(importlib.import_module(VERBS[arguments[0]]).main, arguments[1:])
