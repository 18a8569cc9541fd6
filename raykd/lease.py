"""Who works in a folder: one process at a time, and another takes over when that one died.

A lease is the file `lease.json` in the folder. It names its owner and holds a heartbeat, which a thread renews as long as the
owner lives. A lease whose process is gone from the same machine, or that was not renewed for `STALE_S`, is anybody's. Clocks
of machines that share a folder must agree within a minute or two.

On a local or mounted filesystem exactly one process gets a lease. An object store has no exclusive create for pyarrow: there a
lease is written and read back (`storage.create_new`), which one of two that come within the same second can lose, but not both
win, unless one is held up for longer between looking and writing.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from raykd import storage
from raykd.errors import UserError

LEASE_FILE = "lease.json"
BEAT_S = 20.0
"""Seconds from one heartbeat to the next."""
STALE_S = 180.0
"""Seconds without a heartbeat after which a lease is anybody's: a few lost beats, or a bucket that is slow, are no death."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease."""

    id: str
    host: str
    machine: str
    """Tells apart machines, and containers on one, whose process numbers mean different things."""
    pid: int
    heartbeat: float
    """Seconds since 1970."""

    @property
    def is_live(self) -> bool:
        """Whether it is still at work, as far as one can tell."""
        if self.machine == _machine() and not _is_running(self.pid):
            return False
        return time.time() - self.heartbeat < STALE_S

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, last heard of {max(0, round(time.time() - self.heartbeat))} s ago"


@contextmanager
def leased(folder: str, when_taken: Callable[[Owner], None]) -> Iterator[None]:
    """What happens inside has the folder for itself.

    `when_taken` is called while another has it: it raises, or waits a while and returns, and the lease is asked for again.

    Raises:
        UserError: the folder cannot be written.
    """
    path = storage.join(folder, LEASE_FILE)
    mine = Owner(uuid.uuid4().hex, socket.gethostname(), _machine(), os.getpid(), time.time())
    try:
        while other := _take(path, mine):
            when_taken(other)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{folder}: cannot be written ({reason}); make it writable or choose another folder") from None
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, mine, stop), name="raykd-lease", daemon=True)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()
        _give_back(path, mine)


def _take(path: str, mine: Owner) -> Owner | None:
    """Take the lease; who has it, if somebody has."""
    while not storage.create_new(path, _text(mine)):
        found = _owner(path)
        if found is None:  # given back just now
            continue
        if found.is_live or not _take_over(path, found, mine):
            return found
        return None
    return None


def _take_over(path: str, dead: Owner, mine: Owner) -> bool:
    """Put our lease in the place of a dead one; of several that try, by whoever makes a file named by the dead one."""
    claim = f"{path}.after-{dead.id}"
    if not storage.create_new(claim, mine.id.encode()):
        made = storage.modified_s(claim)
        if made is not None and time.time() - made > STALE_S:  # its maker died between two lines of this function
            storage.delete_file(claim)
        return False
    try:
        found = _owner(path)
        if found is None or found.id != dead.id:  # another was here before us, and gave its claim back already
            return False
        storage.write_bytes(path, _text(mine))
        return True
    finally:
        storage.delete_file(claim)


def _beat(path: str, mine: Owner, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        try:
            found = _owner(path)
            if found is None or found.id != mine.id:
                _log.warning("%s: the lease was lost; %s", path, f"it is now of {found}" if found else "it was removed")
                return
            storage.write_bytes(path, _text(mine))
        except (OSError, UserError):  # a full disk, a bucket that does not answer: the next beat may get through
            continue


def _give_back(path: str, mine: Owner) -> None:
    with suppress(OSError):  # one that cannot be reached grows stale by itself
        found = _owner(path)
        if found is not None and found.id == mine.id:
            storage.delete_file(path)


def _text(owner: Owner) -> bytes:
    """The content of the lease, with the heartbeat of now."""
    return json.dumps(asdict(replace(owner, heartbeat=time.time()))).encode()


def _owner(path: str) -> Owner | None:
    """Who holds the lease; None when it is not there. One that cannot be read is being written, or was cut off by a crash."""
    written = storage.modified_s(path)
    if written is None:
        return None
    try:
        return Owner(**json.loads(storage.read_bytes(path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Owner(f"unreadable-{int(written)}", "an unknown host", "", 0, written)


@cache
def _machine() -> str:
    """Host, boot and space of process numbers: host names alone are the same in containers that share a network."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] != "Z"  # killed, but not yet buried
    except OSError:
        return True
