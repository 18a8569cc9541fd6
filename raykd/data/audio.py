"""Encoded audio of any common kind in, mono float32 at 16 kHz out. What libsndfile does not read (MP4, WebM, AAC ...) is
decoded with PyAV where that is installed (`pip install 'raykd[audio]'`), and named otherwise.

Shapes: S samples over time, C channels.
"""

import importlib.util
import io
import os
import re
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soundfile
import soxr

from raykd.data.containers import WHOLE, container_of, goes_on, whole
from raykd.data.files import connect
from raykd.data.format import SAMPLE_RATE
from raykd.errors import UserError
from raykd.storage import is_remote

if TYPE_CHECKING:
    from av.container import InputContainer

DECODERS = ("soundfile", "av") if importlib.util.find_spec("av") else ("soundfile",)
"""What reads files here: what one does not know, the next may."""
SILENCE_PEAK = 1e-3
"""Half the range of the samples (-60 dB of full scale) below which a clip counts as silent; a constant offset is no sound."""
RATES_HZ = range(2_000, 768_001)
"""Sample rates of recordings; a header that says otherwise is broken."""

_MAX_DECLARED_BYTES = 0x7FF0_0000
"""Streaming writers put placeholders from here up into a WAV header instead of a length."""
_BLOCK_SAMPLES = 1 << 20
_FLOAT_SCALES = (2.0**15, 2.0**23, 2.0**31)
"""Full scale of whole numbers of 16, 24 and 32 bits: programs write them as floats without dividing."""
_LOUDEST = 8.0
"""Floats up to here are loud (18 dB over full scale); beyond, they are whole numbers in disguise."""
_CANCELLED = 0.25
"""Channels whose mean has less than this share of the loudest one's amplitude cancel each other: one is turned round."""
_ROUNDED_S = 0.05
"""A file as long as its part, to so much, is the part: it was cut out already."""
_AT_ONCE_BYTES = 8 << 20
"""Files of less are read whole."""
_STEP_BYTES = 1 << 20
"""Of larger ones that are far away so much is fetched with a request."""
_TELL_LENGTH = ("MP4", "WebM or Matroska", "WMA")
"""Kinds of file whose headers tell a length; of others FFmpeg guesses one."""


class AudioError(Exception):
    """A clip that cannot be used. `reason` is a short stable text for the rejects, such as "unreadable audio"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _ForwardFile(soundfile.SoundFile):
    """Read from start to end. soundfile would seek after each read, and that fails at the end of a FLAC of unknown length."""

    def seekable(self) -> bool:
        return False


Part = tuple[float, float]
"""Start and length in a longer recording, in seconds."""


def read_samples(row: Mapping[str, Any], max_seconds: float | None = None) -> np.ndarray:
    """samples_S of an utterance row. A long file is refused from its header, before the rest of it is read; of a part of a
    recording only that is read.

    Raises:
        AudioError: as `decode_audio`; "no audio", "missing audio file", "unreadable audio file".
    """
    if row["audio"] is not None:
        return decode_audio(row["audio"], max_seconds)
    part = None if row.get("start_s") is None else (row["start_s"], row["duration_s"])
    with _open_path(row["path"]) as stream:
        if not is_remote(row["path"]) and os.fstat(stream.fileno()).st_size > _AT_ONCE_BYTES:
            return _decode(stream, max_seconds, part)
        # One request fetches a whole clip; soundfile's small steps would each be a request.
        try:
            start = stream.read(_AT_ONCE_BYTES)
            if len(start) < _AT_ONCE_BYTES:
                return decode_audio(start, max_seconds, part)
            stream.seek(0)
        except OSError:
            raise AudioError("unreadable audio file") from None
        return _decode(stream, max_seconds, part)


def decode_audio(encoded: bytes, max_seconds: float | None = None, part: Part | None = None) -> np.ndarray:
    """samples_S: mono float32 at 16 kHz, about within -1..1, from wav, flac, ogg (Vorbis, Opus) or mp3 of any width and rate.

    Channels are averaged, then resampled (soxr HQ).

    Raises:
        AudioError: "unreadable audio", "truncated audio", "more sound than its header says", "empty audio", "silent audio",
            "non-finite samples", "part beyond the end of its recording", or "too long (over N s)" when `max_seconds` is given,
            which is told from the header before anything is decoded.
    """
    return _decode(io.BytesIO(encoded), max_seconds, part)


def _decode(stream: BinaryIO, max_seconds: float | None, part: Part | None) -> np.ndarray:
    try:
        if not stream.read(1):
            raise AudioError("empty audio")
        told = whole(stream)
        with _ForwardFile(told) as file:
            rate = file.samplerate
            if rate not in RATES_HZ:
                raise AudioError("unreadable audio")
            if part is None or _is_the_part(file, part):
                samples_S = _read_mono(file, max_seconds)
                truncated = _is_truncated(file, len(samples_S))
                if not truncated and goes_on(told, file.format):
                    raise AudioError("more sound than its header says")
            else:
                samples_S = _read_part(file, part, max_seconds)
                truncated = len(samples_S) < WHOLE * int(part[1] * rate)
    except ValueError as error:
        raise AudioError(str(error)) from None
    except (soundfile.SoundFileError, OSError, MemoryError):
        samples_S, rate, truncated = *_decode_otherwise(stream, max_seconds, part), False
    if truncated:
        raise AudioError("truncated audio")
    if rate != SAMPLE_RATE:
        samples_S = soxr.resample(samples_S, rate, SAMPLE_RATE, quality="HQ")
    if not len(samples_S):
        raise AudioError("empty audio")
    lowest, highest = float(samples_S.min()), float(samples_S.max())
    if not np.isfinite(lowest + highest):
        raise AudioError("non-finite samples")
    peak = max(-lowest, highest)
    if peak > _LOUDEST:
        scale = next((scale for scale in _FLOAT_SCALES if peak <= 1.01 * scale), None)
        if scale is None:
            raise AudioError("samples of no known scale")
        samples_S, lowest, highest = samples_S / np.float32(scale), lowest / scale, highest / scale
    if (highest - lowest) / 2 < SILENCE_PEAK:
        raise AudioError("silent audio")
    return samples_S


def _read_mono(file: soundfile.SoundFile, max_seconds: float | None) -> np.ndarray:
    """Samples at the file's own rate, in blocks, because a header may not know the length of its file."""
    limit = None if max_seconds is None else int(max_seconds * file.samplerate)
    if limit is not None and _knows_length(file) and file.frames > limit:
        raise AudioError(f"too long (over {max_seconds:g} s)")
    at_once = _BLOCK_SAMPLES // file.channels
    blocks_S: list[np.ndarray] = []
    n_frames = 0
    while n_frames < file.frames:
        block_SC = file.read(min(file.frames - n_frames, at_once), dtype="float32", always_2d=True)
        if not len(block_SC):
            break
        blocks_S.append(_mono(block_SC))
        n_frames += len(block_SC)
        if limit is not None and n_frames > limit:
            raise AudioError(f"too long (over {max_seconds:g} s)")
    if len(blocks_S) == 1:
        return blocks_S[0]
    return np.concatenate(blocks_S) if blocks_S else np.zeros(0, np.float32)


def _is_the_part(file: soundfile.SoundFile, part: Part) -> bool:
    return _knows_length(file) and abs(file.frames / file.samplerate - part[1]) <= _ROUNDED_S


def _read_part(file: soundfile.SoundFile, part: Part, max_seconds: float | None) -> np.ndarray:
    """Samples of a part at the file's own rate."""
    start_s, length_s = part
    if max_seconds is not None and length_s > max_seconds:
        raise AudioError(f"too long (over {max_seconds:g} s)")
    start, length = round(start_s * file.samplerate), round(length_s * file.samplerate)
    if _knows_length(file) and start >= file.frames:
        raise AudioError("part beyond the end of its recording")
    if "MPEG" in file.subtype or file.format == "MP3":  # libsndfile's seeking in MP3 is not exact
        while start > 0 and (passed := len(file.read(min(start, _BLOCK_SAMPLES), dtype="float32"))):
            start -= passed
    else:
        file.seek(start)
    samples_SC = file.read(length, dtype="float32", always_2d=True)
    if not len(samples_SC):
        raise AudioError("part beyond the end of its recording")
    return _mono(samples_SC)


def _mono(samples_SC: np.ndarray) -> np.ndarray:
    """The mean of the channels; of channels that cancel each other the first of the loudest."""
    if samples_SC.shape[1] == 1:
        return samples_SC[:, 0]
    mean_S = samples_SC.mean(axis=1)
    power_C = np.square(samples_SC).mean(axis=0)
    if np.square(mean_S).mean() < _CANCELLED**2 * power_C.max():
        return samples_SC[:, int((power_C > 0.9 * power_C.max()).argmax())]
    return mean_S


def _decode_otherwise(stream: BinaryIO, max_seconds: float | None, part: Part | None) -> tuple[np.ndarray, int]:
    """samples_S and their rate of a kind of file that libsndfile does not know, with PyAV; of a part nothing behind it is
    decoded. A file that libsndfile knows is damaged, and FFmpeg would give what is left of it without a word.

    Raises:
        AudioError: it is not known there either, or PyAV is not installed.
    """
    stream.seek(0)
    kind = container_of(stream.read(16))
    stream.seek(0)
    if not kind:
        raise AudioError("unreadable audio")
    if "av" not in DECODERS:
        raise AudioError(f"{kind} needs PyAV: pip install 'raykd[audio]'")
    if part is not None and max_seconds is not None and part[1] > max_seconds:
        raise AudioError(f"too long (over {max_seconds:g} s)")
    import av

    blocks_S: list[np.ndarray] = []
    try:
        with av.open(stream, "r") as container:
            if not container.streams.audio:
                raise AudioError("no audio in the file")
            told_s = _told_seconds(container) if kind in _TELL_LENGTH else 0.0
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
            n_samples = 0
            for frame in container.decode(audio=0):
                for resampled in resampler.resample(frame):
                    blocks_S.append(resampled.to_ndarray()[0])
                    n_samples += len(blocks_S[-1])
                if part is not None and n_samples > (sum(part) + 2 * _ROUNDED_S) * SAMPLE_RATE:
                    break
                if part is None and max_seconds is not None and n_samples > max_seconds * SAMPLE_RATE:
                    raise AudioError(f"too long (over {max_seconds:g} s)")
    except (av.FFmpegError, ValueError, IndexError, MemoryError, OSError):
        raise AudioError("unreadable audio") from None
    samples_S = np.concatenate(blocks_S) if blocks_S else np.zeros(0, np.float32)
    if part is None and len(samples_S) / SAMPLE_RATE + _ROUNDED_S < WHOLE * told_s:
        raise AudioError("truncated audio")
    if part is None and goes_on(stream, kind):
        raise AudioError("more sound than its header says")
    if part is not None and abs(len(samples_S) / SAMPLE_RATE - part[1]) > _ROUNDED_S:
        samples_S = samples_S[round(part[0] * SAMPLE_RATE) : round((part[0] + part[1]) * SAMPLE_RATE)]
        if not len(samples_S):
            raise AudioError("part beyond the end of its recording")
        if len(samples_S) < WHOLE * part[1] * SAMPLE_RATE:
            raise AudioError("truncated audio")
    return samples_S, SAMPLE_RATE


def _told_seconds(container: "InputContainer") -> float:
    """The length of the sound by the header; 0: it does not say, as of what was written while it was said."""
    stream = container.streams.audio[0]
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return ((container.duration or 0) - max(0, container.start_time or 0)) / 1e6


def _knows_length(file: soundfile.SoundFile) -> bool:
    """False for a FLAC written to a pipe, whose header leaves the length open (libsndfile then says 2**63 - 1)."""
    return 0 <= file.frames < 1 << 62


def _is_truncated(file: soundfile.SoundFile, n_frames: int) -> bool:
    if _knows_length(file) and n_frames < WHOLE * file.frames:
        return True
    # libsndfile mends the length of a cut WAV and leaves a note of it.
    note = re.search(r"^\s*(?:data|SSND|BODY|Data Size) *: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if note is None:
        return "Seems to be a truncated file" in file.extra_info  # VOC
    return int(note[1]) < _MAX_DECLARED_BYTES and int(note[2]) < WHOLE * int(note[1])


def _open_path(path: str | None) -> BinaryIO:
    if path is None:
        raise AudioError("no audio")
    try:
        filesystem, inner = connect(path)
        if not is_remote(path) and not stat.S_ISREG(os.stat(inner).st_mode) and not os.path.isdir(inner):
            raise AudioError("no regular file")  # reading from a pipe or a device may never end
        # Python's own file is the faster one below soundfile, which reads in small steps.
        return io.BufferedReader(filesystem.open_input_file(inner), _STEP_BYTES) if is_remote(path) else open(inner, "rb")
    except (FileNotFoundError, IsADirectoryError):
        raise AudioError("missing audio file") from None
    except (OSError, UserError, ValueError):
        raise AudioError("unreadable audio file") from None
