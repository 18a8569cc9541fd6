"""The samples of an utterance row, when its audio is what the row says of it."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile

from raykd.data.audio import AudioError, decode_audio, read_samples
from raykd.data.files import connect
from raykd.data.format import SAMPLE_RATE

_EDGE_S, _EDGE = 0.25, 0.05
"""Padding and rounding by which recordings are longer than tables say: so many seconds, or such a share of them."""
_WHOLE_SECONDS = 1.0
"""The same where a table tells whole seconds."""


def samples_of(row: Mapping[str, Any], max_seconds: float | None = None) -> np.ndarray:
    """samples_S of an utterance row, as `audio.read_samples`.

    Embedded audio that is as long as its part was cut out already; of longer audio the part is cut out.

    Raises:
        AudioError: as `read_samples`; or a file is longer than its row says, which then means a part of it without saying
            which; or embedded audio is not its part and does not hold it; or the row means one channel of several.
    """
    declared_s, start_s = row.get("duration_s"), row.get("start_s")
    if row["audio"] is not None:
        samples_S = decode_audio(row["audio"], max_seconds if start_s is None else None)
        if start_s is not None:
            part = _part_within(len(samples_S) / SAMPLE_RATE, start_s, row["duration_s"])
            if part is not None or (max_seconds is not None and len(samples_S) > max_seconds * SAMPLE_RATE):
                samples_S = decode_audio(row["audio"], max_seconds, part)
    else:
        samples_S = read_samples(row, max_seconds)
        if start_s is None and declared_s and len(samples_S) / SAMPLE_RATE > declared_s + _edge_s(declared_s):
            raise AudioError("longer than its duration, and no offset says which part")
    if row.get("channel") is not None and not _is_mono(row):
        raise AudioError("one channel of several; give each channel as a file of its own")
    return samples_S


def _part_within(found_s: float, start_s: float, length_s: float) -> tuple[float, float] | None:
    """The part to cut out of embedded audio; None: it is the part, whose times are those of the recording it was cut from."""
    surplus_s = abs(found_s - length_s)
    if surplus_s <= _EDGE_S or start_s >= found_s:
        return None
    if start_s + length_s <= found_s + _EDGE_S:
        return start_s, length_s
    if surplus_s <= _edge_s(length_s):
        return None
    raise AudioError("embedded audio that neither is its part nor holds it")


def _edge_s(length_s: float) -> float:
    return _WHOLE_SECONDS if float(length_s).is_integer() else max(_EDGE_S, _EDGE * length_s)


def _is_mono(row: Mapping[str, Any]) -> bool:
    """Whether the audio is known to have one channel."""
    try:
        if row["audio"] is not None:
            return soundfile.info(io.BytesIO(row["audio"])).channels == 1
        filesystem, inner = connect(row["path"])
        with filesystem.open_input_file(inner) as stream:
            return soundfile.info(stream).channels == 1
    except (soundfile.SoundFileError, OSError):
        return False
