"""`history.jsonl`: what happened in a run, one JSON record a line, readable after any crash.

Records are `{"kind": "train" | "eval" | "event", "step": ..., ...}`. A step that is trained again after a crash writes its
record again; readers keep the last one.
"""

import json
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raykd import storage

Record = dict[str, Any]


class JsonLines:
    """A JSON Lines file that grows, also from several threads. Locally each record is on disk at once; remotely the file is
    rewritten every so often.
    """

    def __init__(self, path: str, upload_every_s: float = 60.0) -> None:
        """Open for appending; records that are there already are kept."""
        self.path = path
        self._upload_every_s = upload_every_s
        self._remote_text: str | None = None
        self._uploaded_at = -math.inf
        self._lock = threading.RLock()
        if storage.is_remote(path):
            self._remote_text = _complete_lines(path)
        else:
            self._local = storage.filesystem_of(path)[1]
            os.makedirs(os.path.dirname(self._local), exist_ok=True)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records at the end."""
        text = "".join(json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records)
        with self._lock:
            if self._remote_text is not None:
                self._remote_text += text
                if time.monotonic() - self._uploaded_at >= self._upload_every_s:
                    self.flush()
                return
            with open(self._local, "a+b") as file:
                if file.tell() and _last_byte(file) != b"\n":  # a crash tore the last line; keep it from swallowing the next
                    text = "\n" + text
                file.write(text.encode("utf-8"))

    def rewrite(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace the content, whole or not at all."""
        text = "".join(json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records)
        with self._lock:
            storage.write_text(self.path, text)
            if self._remote_text is not None:
                self._remote_text = text

    def clear(self) -> None:
        """Forget every record; the file goes away."""
        with self._lock:
            storage.delete_file(self.path)
            if self._remote_text is not None:
                self._remote_text = ""

    def flush(self) -> None:
        """Upload what a remote filesystem does not have yet."""
        with self._lock:
            if self._remote_text:
                storage.write_text(self.path, self._remote_text)
                self._uploaded_at = time.monotonic()


class HistoryWriter(JsonLines):
    """Writes a run's history."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Add one record."""
        self.append([record])

    def rewind(self, step: int) -> None:
        """Forget training and evaluations after `step`, from which the run goes on; events are kept."""
        with self._lock:
            self.flush()
            records = read_json_lines(self.path)
            kept = [record for record in records if record.get("kind") == "event" or record.get("step", 0) <= step]
            if len(kept) < len(records):
                self.rewrite(kept)


@dataclass(frozen=True)
class History:
    """A run's records: training and evaluations sorted by step, each step once; events in the order they happened."""

    train: list[Record]
    eval: list[Record]
    events: list[Record]


def read_history(path: str) -> History:
    """The history of a run; empty when there is no such file."""
    train: dict[int, Record] = {}
    evaluations: dict[tuple[int, str], Record] = {}
    events = []
    for record in read_json_lines(path):
        match record.get("kind"):
            case "train":
                train[record["step"]] = record
            case "eval":
                evaluations[record["step"], record.get("split", "dev")] = record
            case "event":
                events.append(record)
    return History([train[step] for step in sorted(train)], [evaluations[key] for key in sorted(evaluations)], events)


def read_json_lines(path: str) -> list[Record]:
    """The records of a JSON Lines file; lines torn by a crash are left out, and there are none when there is no file."""
    records = []
    if not storage.exists(path):
        return []
    for line in storage.read_bytes(path).decode("utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _complete_lines(path: str) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in read_json_lines(path))


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _finite(value: Any) -> Any:
    """NaN and infinities as None: JSON has none, and one must not make a whole history unreadable."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
