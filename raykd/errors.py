"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """Something the user can put right. The message is one line: it names the file, row or config key and says what to do.

    Commands print it without a traceback and exit with status 2 (`raykd.cli.run_command`).
    """
