"""The utterance row that every source yields, and how a row of somebody's table becomes one.

An utterance is a flat Arrow row (`SCHEMA`). `audio` holds encoded bytes, or `path` says where they are (never read here).
`problem` is the reason why the row cannot be used, or null; such a row carries whatever is known of it and goes to the rejects.

`id` is stable across runs and machines. It is the row's own id column where there is one; else the audio's path relative to
the source's root; else, for embedded audio, the file and the row's position in it (`train-00000.parquet:17`). With several
sources, ids of the second and later ones start with the source's number (`2:...`), so that adding a source leaves the ids
of the first, and the dev set cut from it by hash, as they are.
"""

import io
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

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
DURATION_COLUMNS = ("duration_s", "duration", "duration_sec", "duration_seconds")
SPLIT_COLUMNS = ("split",)
OFFSET_COLUMNS = ("offset", "offset_s", "offset_sec")
START_COLUMNS = ("start_s", "start", "start_time", "begin_time", "begin", "start_sec", "start_seconds")
END_COLUMNS = ("end_s", "end", "end_time", "stop", "stop_time", "end_sec", "end_seconds")
RATE_COLUMNS = ("sampling_rate", "sample_rate")
"""Hz of audio that is an array of samples."""
RECORDING_COLUMNS = ("recording", "recording_id", "speaker", "speaker_id", "client_id")
_TIMES = (*DURATION_COLUMNS, *OFFSET_COLUMNS, *START_COLUMNS, *END_COLUMNS)
_IN_MS = {name: f"{name}_ms" for name in ("duration", "offset", "start", "start_time", "begin", "end", "end_time", "stop")}
_IN_SAMPLES = tuple(f"{name}_{unit}" for name in ("start", "end", "offset", "begin") for unit in ("sample", "samples", "frame"))
_MORE_COLUMNS = {*_TIMES, *_IN_MS.values(), *_IN_SAMPLES, *SPLIT_COLUMNS, *RECORDING_COLUMNS, *RATE_COLUMNS}
OUR_COLUMNS = {
    "audio": "audio",
    "text": "text",
    "language": "language",
    "id": "id",
    "split": "split",
    "recording": "recording",
    "start": "start_s",
    "end": "end_s",
    "duration": "duration_s",
}
"""By the keys of `data.source.columns`: the name under which a column is read."""

NO_AUDIO = "no audio"
NO_RATE = "samples without their rate"
NO_TRANSCRIPT = "no transcript"
NO_LANGUAGE = "no language"
NOT_JSON = "not valid JSON"
NOT_UTF8 = "not UTF-8 text"
NO_END = "part of a longer recording without its end"
NO_LENGTH = "part of a longer recording that ends before it begins"
IN_SAMPLES = "part of a longer recording in samples; give data.source.columns with time_unit and rate"

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("dev", "development", "validation", "validate", "valid", "val", "validated_dev"), "dev"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "heldout", "holdout"), "test"),
}
OWN_SPLITS = ("test_ood", "test_words")
"""Names of splits that stay as they are: those that raykd's demo speech has, and those that `data.test_splits` asks for."""
UNCLEAR_SPLIT = "unclear split"
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

    def known(self, columns: Iterable[str]) -> list[str]:
        """Those of the columns that are read."""
        read = {*self.id_columns, *self.audio_columns, *self.text_columns, *self.language_columns}
        named = {theirs for theirs, _ in self.renamed}
        return [name for name in columns if name in read | _MORE_COLUMNS | named]

    def ours(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row's columns under the names that are known."""
        if not self.renamed:
            return fields
        taken = {ours for _, ours in self.renamed}
        rest = {name: value for name, value in fields.items() if name not in taken}
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
    split = _as_text(_first(fields, SPLIT_COLUMNS))
    if problem is None and audio is None and path is None:
        problem = NO_AUDIO
    start_s, duration_s, part_problem = _part(fields, origin.unit_s)
    if path is None:  # what is embedded is the utterance
        start_s, part_problem = None, None
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
        "split": split or origin.split,
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


def split_name(name: str, own: Collection[str] = OWN_SPLITS) -> str | None:
    """Our name of a split: what a person would take it for, with whatever stands around the word (`test_clean`, `dev-other`,
    `validation.clean`, `train_clean_100` are `test`, `dev`, `dev` and `train`). One of `own` stays as it is, and so does a name
    without such a word, which is then neither trained on nor tested; None: it has two of them (`train_test`).
    """
    key = name.strip().lower()
    if key in own:
        return key
    found = _splits_in(key)
    return (found.pop() if len(found) == 1 else None) if found else key


def _splits_in(name: str) -> set[str]:
    """Splits that the words of a name stand for; a number at the end of a word counts for nothing (`test2`)."""
    words = (re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", name.lower()))
    return {_SPLITS[word] for word in words if word in _SPLITS}


def split_of_file(name: str) -> str | None:
    """What tells the split in a relative file name, for `split_name`: its stem without a shard's number (`train-00003.tar`,
    `test_manifest.jsonl`), else one of its folders (`dev/rows.csv`). None: nothing does.
    """
    *folders, last = name.lower().split("/")
    stem = _SHARD_NUMBER.sub("", last.partition(".")[0])
    return next((part for part in (stem, *reversed(folders)) if _splits_in(part)), None)


def split_of_folder(name: str) -> str | None:
    """The same of the first folder of a relative file name."""
    folder, slash, _ = name.lower().partition("/")
    return folder if slash and _splits_in(folder) else None


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


def _part(fields: Mapping[str, Any], unit_s: float) -> tuple[float | None, float | None, str | None]:
    """Start of the utterance in its file (None: it is the file), its length, and what is wrong with them.

    Parts are written as `offset` with `duration` (NeMo's manifests) or as `start` with `end`, in seconds unless the column or
    the config says otherwise.
    """
    duration_s = _seconds(fields, DURATION_COLUMNS, unit_s)
    start_s, end_s = _seconds(fields, START_COLUMNS, unit_s), _seconds(fields, END_COLUMNS, unit_s)
    if start_s is None and _first(fields, _IN_SAMPLES) is not None:
        return None, duration_s, IN_SAMPLES
    if start_s is not None and end_s is not None:
        return (start_s, end_s - start_s, None) if end_s > start_s else (None, duration_s, NO_LENGTH)
    offset_s = _seconds(fields, OFFSET_COLUMNS, unit_s)
    start_s = start_s if offset_s is None else offset_s
    if start_s is None or (start_s == 0 and duration_s is None):
        return None, duration_s, None
    if duration_s is None:
        return None, None, NO_END
    return (start_s, duration_s, None) if duration_s > 0 else (None, duration_s, NO_LENGTH)


def _seconds(fields: Mapping[str, Any], columns: Iterable[str], unit_s: float) -> float | None:
    """A time from the first of the columns that holds one, or from one whose name says milliseconds."""
    number = _number(_first(fields, columns))
    if number is not None:
        return number * unit_s
    in_ms = _number(_first(fields, [_IN_MS[name] for name in columns if name in _IN_MS]))
    return None if in_ms is None else in_ms / 1000


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


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
