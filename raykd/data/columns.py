"""Names that columns of tables of speech are known by."""

from collections.abc import Sequence


def _timed(names: Sequence[str], *endings: str) -> tuple[str, ...]:
    return tuple(f"{name}{ending}" for ending in endings for name in names)


ID_COLUMNS = ("id", "utt_id")
AUDIO_COLUMNS = ("audio", "audio_filepath", "audio_path", "path", "file", "file_name", "wav")
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "raw_transcription", "normalized_text")
LANGUAGE_COLUMNS = ("language", "lang", "locale")
SPLIT_COLUMNS = ("split", "subset", "partition", "set")
"""The others where they name a split: a `subset` may be anything else."""
RECORDING_COLUMNS = ("recording", "recording_id", "speaker", "speaker_id", "client_id")
RATE_COLUMNS = ("sampling_rate", "sample_rate")
"""Hz of audio that is an array of samples."""
CHANNEL_COLUMNS = ("channel", "audio_channel", "channel_id", "channel_index")

_BEGINS = ("start", "begin", "start_time", "begin_time", "segment_start", "audio_start")
_ENDS = ("end", "stop", "end_time", "stop_time", "segment_end", "audio_end")
_IN_S = ("_s", "", "_sec", "_secs", "_seconds")
DURATION_COLUMNS = _timed(("duration",), *_IN_S)
START_COLUMNS = (*_timed(_BEGINS, *_IN_S), "tmin", "xmin")
END_COLUMNS = (*_timed(_ENDS, *_IN_S), "tmax", "xmax")
OFFSET_COLUMNS = _timed(("offset",), *_IN_S)
ONSET_COLUMNS = _timed(("onset",), *_IN_S)
"""A start; the offset beside it is the end."""
IN_MS = {name: f"{name}_ms" for name in ("duration", *_BEGINS, *_ENDS, "offset", "onset")}
"""Of those above the ones in milliseconds."""
_STARTS = (*_BEGINS, *_ENDS, "offset", "onset")
IN_SAMPLES_COLUMNS = _timed(_STARTS, "_sample", "_samples", "_frame", "_frames")
NO_UNIT_COLUMNS = _timed(_STARTS, "_ts", "_timestamp")
"""Seconds in some tables, milliseconds in others."""

_IN_START = (*START_COLUMNS, *OFFSET_COLUMNS, *ONSET_COLUMNS)
_ROLES = {
    "audio": AUDIO_COLUMNS,
    "text": TEXT_COLUMNS,
    "language": LANGUAGE_COLUMNS,
    "id": ID_COLUMNS,
    "split": SPLIT_COLUMNS,
    "recording": RECORDING_COLUMNS,
    "start_s": (*_IN_START, *(IN_MS[name] for name in _IN_START if name in IN_MS), *IN_SAMPLES_COLUMNS, *NO_UNIT_COLUMNS),
    "end_s": (*END_COLUMNS, *(IN_MS[name] for name in END_COLUMNS if name in IN_MS)),
    "duration_s": (*DURATION_COLUMNS, IN_MS["duration"]),
}
ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
"""What a known column is taken for, by its name."""
MORE_COLUMNS = {*ROLE_OF, *RATE_COLUMNS, *CHANNEL_COLUMNS} - {*ID_COLUMNS, *AUDIO_COLUMNS, *TEXT_COLUMNS, *LANGUAGE_COLUMNS}
"""Those that every source reads; the others are what an `Origin` says."""
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
