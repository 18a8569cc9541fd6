"""The two exceptions whose message is all a user needs to see. It may hold what came from data, and is made fit to show."""

from raykd.shown import shown


class UserError(Exception):
    """Something the user can put right. The message is one line: it names the file, row or config key and says what to do.

    Commands print it without a traceback and exit with status 2 (`raykd.cli.run_command`).
    """

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


class RunError(Exception):
    """A run that could not go on. The message is one line: what happened, what is kept and how to go on.

    Commands print it without a traceback and exit with status 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))
