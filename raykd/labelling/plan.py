"""What a folder of a teacher's work is made with: kept from its first batch on, so that it is only gone on with alike."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from raykd import storage
from raykd.errors import UserError
from raykd.lease import Owner, leased

Progress = Callable[[int, int], None]
"""Called with the utterances done so far and those to be done."""
_PLAN_FILE = "plan.json"


def begin(path: str, plan: Mapping[str, Any]) -> None:
    """Note what unfinished work is made with.

    Raises:
        UserError: other work was begun here, or the folder cannot be written.
    """
    file = storage.join(path, _PLAN_FILE)
    if storage.exists(file):
        require_same(path, json.loads(storage.read_bytes(file)), plan)
        return
    with writing(path):
        storage.write_text(file, json.dumps(plan, indent=2))


def require_same(path: str, made: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Raises UserError: the work in a folder was made otherwise than it is wanted now."""
    differing = [f"{key} {made.get(key)} (now {value})" for key, value in plan.items() if made.get(key) != value]
    if differing:
        raise UserError(
            f"{path}: was made with other settings: {', '.join(differing)}; remove the folder, or give another one with --out"
        )


@contextmanager
def writing(path: str) -> Iterator[None]:
    """A failure to write is told as the user's."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); make room and run the same again") from None


@contextmanager
def alone(path: str) -> Iterator[None]:
    """The folder is this process's own.

    Raises:
        UserError: another one is at work in it.
    """

    def taken(owner: Owner) -> None:
        raise UserError(f"{path}: is being made by {owner}; wait for it, or give another folder with --out")

    with leased(path, taken):
        yield
