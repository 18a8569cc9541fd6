"""The utterance row that every source yields, and how a row of somebody's table becomes one.

An utterance is a flat Arrow row (`SCHEMA`). `audio` holds encoded bytes, or `path` says where they are (never read here).
`problem` is the reason why the row cannot be used, or null; such a row carries whatever is known of it and goes to the rejects.

`id` is stable across runs and machines. It is the row's own id column where there is one; else the audio's path relative to
the source's root; else, for embedded audio, the file and the row's position in it (`train-00000.parquet:17`). With several
sources, ids of the second and later ones start with the source's number (`2:...`), so that adding a source leaves the ids
of the first, and the dev set cut from it by hash, as they are.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from raykd.data.columns import (
    AUDIO_COLUMNS,
    CHANNEL_COLUMNS,
    ID_COLUMNS,
    LANGUAGE_COLUMNS,
    MORE_COLUMNS,
    RATE_COLUMNS,
    RECORDING_COLUMNS,
    ROLE_OF,
    SPLIT_COLUMNS,
    TEXT_COLUMNS,
)
from raykd.data.files import child, relative_to
from raykd.data.languages import whisper_code
from raykd.data.split_names import splits_in
from raykd.data.times import PartError, span_of

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("audio", pa.large_binary()),
        ("path", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("duration_s", pa.float64()),
        ("split", pa.string()),
        ("recording", pa.string()),
        ("start_s", pa.float64()),
        ("channel", pa.string()),
        ("problem", pa.string()),
    ]
)
"""`start_s`: where the utterance begins in its file, which then holds more than it; its `duration_s` says where it ends. Null:
the file is the utterance. What the file really holds is seen when it is read (`data.row_audio`). `channel`: the one of several
that the utterance is on. `recording`: what belongs together: a recording, else a speaker, else a folder."""

NO_AUDIO = "no audio"
NO_RATE = "samples without their rate"
NO_TRANSCRIPT = "no transcript"
NO_LANGUAGE = "no language"
NOT_JSON = "not valid JSON"
NOT_UTF8 = "not UTF-8 text"
_SURROGATE = re.compile(r"[\0\ud800-\udfff]")
"""Characters that stand for bytes which are not UTF-8 (PEP 383), or halves of characters in JSON, which Arrow cannot hold; and
NUL, of which UTF-16 that is read as UTF-8 is full."""
_CHANNEL = re.compile(r"\d{1,2}(\.0)?|[a-d]|l|r|left|right")
_BLOCK_ROWS = 256
_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class Origin:
    """What the file that rows come from gives to each of them."""

    root: str
    """Folder of the source; ids made from paths are relative to it."""
    folder: str
    """Folder that relative audio paths start from."""
    prefix: str = ""
    """Start of every id."""
    language: str | None = None
    """Whisper's code for rows that name no language."""
    split: str | None = None
    """Split of rows that name none, as the source calls it; it gets its name of ours in `data.sources`."""
    id_columns: tuple[str, ...] = ID_COLUMNS
    audio_columns: tuple[str, ...] = AUDIO_COLUMNS
    text_columns: tuple[str, ...] = TEXT_COLUMNS
    language_columns: tuple[str, ...] = LANGUAGE_COLUMNS
    needs_text: bool = True
    """Whether a row without a transcript cannot be used."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(their name, ours) of columns that the config names."""
    unit_s: float = 1.0
    """Seconds in a unit of starts, ends and durations."""
    language_names: tuple[str, ...] = ()
    """Names of languages that the rows give as numbers (`ClassLabel` of Hugging Face)."""

    @cached_property
    def _read(self) -> frozenset[str]:
        known = (*self.id_columns, *self.audio_columns, *self.text_columns, *self.language_columns, *MORE_COLUMNS)
        return frozenset((*known, *(theirs for theirs, _ in self.renamed)))

    def name_of(self, column: str) -> str:
        """A column's name as it is known: people write `Audio Path` and `SENTENCE`. One that is not read keeps its own."""
        if column in self._read:
            return column
        plain = re.sub(r"[\s-]+", "_", column.strip().lower())
        return plain if plain in self._read else column

    def known(self, columns: Iterable[str]) -> list[str]:
        """Those of the columns that are read."""
        return [column for column in columns if self.name_of(column) in self._read]

    def ours(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row's columns under the names that are known. What the config names a column for, no other is taken for."""
        spelled = {self.name_of(name): value for name, value in fields.items()}
        fields = {**spelled, **{name: fields[name] for name in fields if name in self._read}}
        if not self.renamed:
            return fields
        taken = {ours for _, ours in self.renamed}
        rest = {name: value for name, value in fields.items() if ROLE_OF.get(name) not in taken}
        return {**rest, **{ours: fields.get(theirs) for theirs, ours in self.renamed}}


def utterance(fields: Mapping[str, Any], position: str, origin: Origin, problem: str | None = None) -> dict[str, Any]:
    """One row of `SCHEMA` from the columns of a manifest row, under any of their known names.

    Args:
        fields: column -> value; audio is a path, bytes, or `{"bytes", "path"}` as Hugging Face stores it.
        position: where the row stands, such as `manifest.jsonl:12`; its id when nothing better is there.
        origin: what the row's file gives to it.
        problem: a reason that is known already; otherwise the first that is found here.
    """
    fields = origin.ours(fields)
    broken = [name for name in origin.known(fields) if isinstance(fields[name], str) and _SURROGATE.search(fields[name])]
    if broken:
        fields = {**fields, **{name: _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", fields[name]) for name in broken}}
        problem = problem or NOT_UTF8
    said = _first(fields, origin.audio_columns)
    if problem is None and _are_samples(said):
        said, problem = _encoded(said, _first(fields, RATE_COLUMNS))
    audio, path = _audio(said, origin)
    text = _as_text(_first(fields, origin.text_columns))
    language, language_problem = _language(_first(fields, origin.language_columns), origin)
    if problem is None and audio is None and path is None:
        problem = NO_AUDIO
    try:
        start_s, duration_s = span_of(fields, origin.unit_s)
    except PartError as error:
        start_s, duration_s = None, None
        if path is not None:  # embedded audio was mostly cut by these times, and is then whole
            problem = problem or str(error)
    if problem is None and text is None and origin.needs_text:
        problem = NO_TRANSCRIPT
    own_id = _as_text(_first(fields, origin.id_columns))
    file = relative_to(origin.root, path) if path else None
    span = "" if start_s is None or duration_s is None else f":{start_s:.2f}-{start_s + duration_s:.2f}"
    recording = _as_text(_first(fields, RECORDING_COLUMNS)) or (file if span or not file else file.rpartition("/")[0] or ".")
    return {
        "id": origin.prefix + (own_id or (file + span if file else position)),
        "audio": audio,
        "path": path,
        "text": text,
        "language": language,
        "duration_s": duration_s,
        "split": _split(fields) or origin.split,
        "recording": None if recording is None else origin.prefix + recording,
        "start_s": start_s,
        "channel": _channel(fields),
        "problem": problem or language_problem,
    }


def tables(rows: Iterable[Mapping[str, Any]]) -> Iterator[pa.Table]:
    """Rows as Arrow tables of `SCHEMA`, each small enough that memory stays bounded whatever the size of the clips."""
    block: list[Mapping[str, Any]] = []
    n_bytes = 0
    for row in rows:
        block.append(row)
        n_bytes += len(row["audio"] or b"")
        if len(block) == _BLOCK_ROWS or n_bytes >= _BLOCK_BYTES:
            yield pa.Table.from_pylist(block, schema=SCHEMA)
            block, n_bytes = [], 0
    if block:
        yield pa.Table.from_pylist(block, schema=SCHEMA)


def _are_samples(value: Any) -> bool:
    """Whether audio is decoded already: an array, alone or as `{"array", "sampling_rate"}` of Hugging Face."""
    return isinstance(value, list) or (isinstance(value, Mapping) and isinstance(value.get("array"), list))


def _encoded(value: Any, rate: Any) -> tuple[bytes | None, str | None]:
    """An array of samples, or of channels of samples, as a file; or what is wrong with it."""
    if isinstance(value, Mapping):
        value, rate = value["array"], value.get("sampling_rate") or rate
    try:
        samples = np.array(value, np.float32)
        if not rate or samples.ndim not in (1, 2):
            return None, NO_AUDIO if rate else NO_RATE
        if samples.ndim == 2 and len(samples) < samples.shape[1]:  # channels of samples
            samples = samples.T
        with io.BytesIO() as sink:
            soundfile.write(sink, samples, int(rate), format="WAV", subtype="FLOAT")
            return sink.getvalue(), None
    except (TypeError, ValueError, soundfile.LibsndfileError):
        return None, NO_AUDIO


def _audio(value: Any, origin: Origin) -> tuple[bytes | None, str | None]:
    """Embedded bytes, or a full path."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value.strip():
        return None, child(origin.folder, value.strip())
    return value if isinstance(value, bytes) else None, None


def _split(fields: Mapping[str, Any]) -> str | None:
    told, *others = (_as_text(fields.get(name)) for name in SPLIT_COLUMNS)
    return told or next((name for name in others if name and splits_in(name)), None)


def _channel(fields: Mapping[str, Any]) -> str | None:
    """Elsewhere a `channel` is what people watch."""
    name = (_as_text(_first(fields, CHANNEL_COLUMNS)) or "").lower()
    return name if _CHANNEL.fullmatch(name) else None


def _language(value: Any, origin: Origin) -> tuple[str | None, str | None]:
    """Whisper's code of the row's language, or the name as it is written, with the problem."""
    if isinstance(value, int) and 0 <= value < len(origin.language_names):
        value = origin.language_names[value]
    name = _as_text(value)
    if name is None:
        return origin.language, None if origin.language else NO_LANGUAGE
    code = whisper_code(name)
    return code or name, None if code else f"unknown language {name}"


def _first(fields: Mapping[str, Any], columns: Iterable[str]) -> Any:
    """The first of the columns that holds something."""
    return next((fields[name] for name in columns if fields.get(name) not in (None, "", b"")), None)


def _as_text(value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    if isinstance(value, bytes):  # a binary column of a table
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return value.strip() or None if isinstance(value, str) else None
