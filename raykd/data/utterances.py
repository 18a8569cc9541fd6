"""The utterance row that every source yields, and how a row of somebody's table becomes one.

An utterance is a flat Arrow row (`SCHEMA`). `audio` holds encoded bytes, or `path` says where they are (never read here).
`problem` is the reason why the row cannot be used, or null; such a row carries whatever is known of it and goes to the rejects.

`id` is stable across runs and machines. It is the row's own id column where there is one; else the audio's path relative to
the source's root; else, for embedded audio, the file and the row's position in it (`train-00000.parquet:17`). With several
sources, ids of the second and later ones start with the source's number (`2:...`), so that adding a source leaves the ids
of the first, and the dev set cut from it by hash, as they are.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raykd.data.files import child, relative_to
from raykd.data.languages import whisper_code

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
        ("problem", pa.string()),
    ]
)
"""`start_s`: where the utterance begins in its file, which then holds more than it; its `duration_s` says where it ends. Null:
the file is the utterance. `recording`: what belongs together: a recording, else a speaker, else a folder."""

ID_COLUMNS = ("id", "utt_id")
AUDIO_COLUMNS = ("audio", "audio_filepath", "audio_path", "path", "file", "file_name", "wav")
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "raw_transcription", "normalized_text")
LANGUAGE_COLUMNS = ("language", "lang", "locale")
DURATION_COLUMNS = ("duration_s", "duration")
SPLIT_COLUMNS = ("split",)
OFFSET_COLUMNS = ("offset",)
START_COLUMNS = ("start_s", "start", "start_time", "begin_time")
END_COLUMNS = ("end_s", "end", "end_time")
RECORDING_COLUMNS = ("recording", "recording_id", "speaker", "speaker_id", "client_id")
_MORE_COLUMNS = {*DURATION_COLUMNS, *SPLIT_COLUMNS, *OFFSET_COLUMNS, *START_COLUMNS, *END_COLUMNS, *RECORDING_COLUMNS}

NO_AUDIO = "no audio"
NO_TRANSCRIPT = "no transcript"
NO_LANGUAGE = "no language"
NOT_JSON = "not valid JSON"
NOT_UTF8 = "not UTF-8 text"
NO_END = "part of a longer recording without its end"
NO_LENGTH = "part of a longer recording that ends before it begins"

_SPLITS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
    "test_ood": "test_ood",
}
_SHARD_NUMBER = re.compile(r"[-_.]?\d+([-_.]of[-_.]\d+)?$")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Characters that stand for bytes which are not UTF-8 (PEP 383), or halves of characters in JSON; Arrow cannot hold them."""
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
    """Split of rows that name none."""
    id_columns: tuple[str, ...] = ID_COLUMNS
    audio_columns: tuple[str, ...] = AUDIO_COLUMNS
    text_columns: tuple[str, ...] = TEXT_COLUMNS
    language_columns: tuple[str, ...] = LANGUAGE_COLUMNS
    needs_text: bool = True
    """Whether a row without a transcript cannot be used."""
    language_names: tuple[str, ...] = ()
    """Names of languages that the rows give as numbers (`ClassLabel` of Hugging Face)."""

    def known(self, columns: Iterable[str]) -> list[str]:
        """Those of the columns that are read."""
        read = {*self.id_columns, *self.audio_columns, *self.text_columns, *self.language_columns}
        return [name for name in columns if name in read | _MORE_COLUMNS]


def utterance(fields: Mapping[str, Any], position: str, origin: Origin, problem: str | None = None) -> dict[str, Any]:
    """One row of `SCHEMA` from the columns of a manifest row, under any of their known names.

    Args:
        fields: column -> value; audio is a path, bytes, or `{"bytes", "path"}` as Hugging Face stores it.
        position: where the row stands, such as `manifest.jsonl:12`; its id when nothing better is there.
        origin: what the row's file gives to it.
        problem: a reason that is known already; otherwise the first that is found here.
    """
    broken = [name for name in origin.known(fields) if isinstance(fields[name], str) and _SURROGATE.search(fields[name])]
    if broken:
        fields = {**fields, **{name: _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", fields[name]) for name in broken}}
        problem = problem or NOT_UTF8
    audio, path = _audio(_first(fields, origin.audio_columns), origin)
    text = _as_text(_first(fields, origin.text_columns))
    language, language_problem = _language(_first(fields, origin.language_columns), origin)
    split = _as_text(_first(fields, SPLIT_COLUMNS))
    if problem is None and audio is None and path is None:
        problem = NO_AUDIO
    start_s, duration_s, part_problem = _part(fields) if path else (None, _number(_first(fields, DURATION_COLUMNS)), None)
    problem = problem or part_problem
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
        "split": split_name(split) if split else origin.split,
        "recording": None if recording is None else origin.prefix + recording,
        "start_s": start_s,
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


def split_name(name: str) -> str:
    """Our name of a split: `validation`, `valid` and `val` are `dev`, parts of `train` (`train.100`) are `train`."""
    key = name.strip().lower()
    if re.match(r"train(ing)?\W", key):
        return "train"
    return _SPLITS.get(key, key)


def split_of_file(name: str) -> str | None:
    """The split that a relative file name tells: its stem without shard number (`train-00003.tar`), else one of its folders."""
    *folders, last = name.lower().split("/")
    stem = _SHARD_NUMBER.sub("", last.partition(".")[0])
    return next((_SPLITS[part] for part in (stem, *reversed(folders)) if part in _SPLITS), None)


def split_of_folder(name: str) -> str | None:
    """The split named by the first folder of a relative file name."""
    folder, slash, _ = name.lower().partition("/")
    return _SPLITS.get(folder) if slash else None


def _audio(value: Any, origin: Origin) -> tuple[bytes | None, str | None]:
    """Embedded bytes, or a full path."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value.strip():
        return None, child(origin.folder, value.strip())
    return value if isinstance(value, bytes) else None, None


def _part(fields: Mapping[str, Any]) -> tuple[float | None, float | None, str | None]:
    """Start of the utterance in its file (None: it is the file), its length, and what is wrong with them.

    Parts are written as `offset` with `duration` (NeMo's manifests) or as `start` with `end`, in seconds.
    """
    duration_s = _number(_first(fields, DURATION_COLUMNS))
    start_s, end_s = _number(_first(fields, START_COLUMNS)), _number(_first(fields, END_COLUMNS))
    if start_s is not None and end_s is not None:
        return (start_s, end_s - start_s, None) if end_s > start_s else (None, duration_s, NO_LENGTH)
    offset_s = _number(_first(fields, OFFSET_COLUMNS))
    start_s = start_s if offset_s is None else offset_s
    if start_s is None or (start_s == 0 and duration_s is None):
        return None, duration_s, None
    if duration_s is None:
        return None, None, NO_END
    return (start_s, duration_s, None) if duration_s > 0 else (None, duration_s, NO_LENGTH)


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
    return value.strip() or None if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
