"""Headers of audio that do not tell the truth, and sound that is written in odd ways."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from raykd.data.audio import AudioError, decode_audio, read_samples
from raykd.data.containers import whole

RATE = 16_000
TIMES_S = np.arange(2 * RATE) / RATE
TONE_S = (0.3 * np.sin(2 * np.pi * 440 * TIMES_S) * np.linspace(0.2, 1, len(TIMES_S))).astype(np.float32)

NOISE_S = 0.05 * np.random.default_rng(0).standard_normal(len(TONE_S)).astype(np.float32)

MORE = "more sound than its header says"


def encoded(samples: np.ndarray, kind: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=kind, subtype=subtype)
    return buffer.getvalue()


def seconds_or_reason(data: bytes) -> float | str:
    try:
        return len(decode_audio(data)) / RATE
    except AudioError as error:
        return error.reason


def without_xing(mp3: bytes) -> bytes:
    """The frame that tells the length is the first one."""
    header = mp3[:4]
    assert b"Xing" in mp3[:200] or b"Info" in mp3[:200]
    at = 4
    while mp3[at : at + 2] != header[:2] or mp3[at + 2] >> 4 in (0, 15):
        at += 1
    return mp3[at:]


@pytest.mark.parametrize("says", [0.5, 0.1, 0.9])
def test_a_wav_that_says_less_than_it_holds_is_read_whole(says: float) -> None:
    wav = encoded(TONE_S, "WAV", "PCM_16")
    at = wav.index(b"data") + 4
    size = int(says * struct.unpack("<I", wav[at : at + 4])[0]) // 2 * 2
    lying = wav[:at] + struct.pack("<I", size) + wav[at + 4 :]
    assert len(decode_audio(lying)) == len(TONE_S)


def test_chunks_behind_the_data_of_a_wav_are_no_sound() -> None:
    wav = encoded(TONE_S, "WAV", "PCM_16")
    for behind in (b"LIST" + struct.pack("<I", 4000) + bytes(range(1, 251)) * 16, b"\0" * 4001, b"\x01\x02\x03"):
        stream = io.BytesIO(wav + behind)
        assert whole(stream) is stream
        assert len(decode_audio(wav + behind)) == len(TONE_S)


def test_an_mp3_without_a_length_is_read_whole() -> None:
    noise_S = 0.2 * np.random.default_rng(0).standard_normal(len(TONE_S) // 2).astype(np.float32)
    mp3 = encoded(np.concatenate([np.zeros(RATE // 2, np.float32), noise_S, TONE_S]), "MP3")
    expected = decode_audio(mp3)
    bare = decode_audio(without_xing(mp3))
    assert abs(len(bare) - len(expected)) < 0.1 * RATE
    for tail in (b"", b"TAG" + b"x" * 125, b"APETAGEX" + bytes(24) + b"x" * 3000):
        stream = io.BytesIO(mp3 + tail)
        assert whole(stream) is stream, "one that says its length is left alone"


@pytest.mark.parametrize("xing", [True, False])
@pytest.mark.parametrize("at", [0.25, 0.5])
def test_damage_in_an_mp3_ends_it_not(xing: bool, at: float) -> None:
    mp3 = encoded(TONE_S + NOISE_S, "MP3")
    mp3 = mp3 if xing else without_xing(mp3)
    cut = int(at * len(mp3))
    assert abs(len(decode_audio(mp3[:cut] + bytes(300) + mp3[cut:])) - len(TONE_S)) < 0.1 * RATE


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("FLAC", None),
        ("AIFF", None),
        ("AU", None),
        ("WAV", None),
        ("RF64", None),
        ("W64", None),
        ("NIST", None),
        ("SVX", None),
        ("VOC", None),
        ("CAF", None),
    ],
)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.85])
def test_a_file_that_was_cut_off_is_not_shortened_without_a_word(kind: str, subtype: str | None, share: float) -> None:
    data = encoded(TONE_S, kind, subtype)
    assert abs(len(decode_audio(data)) - len(TONE_S)) < 0.05 * RATE
    with pytest.raises(AudioError):
        decode_audio(data[: int(share * len(data))])


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("MP3", None),
        ("FLAC", None),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("AU", None),
        ("CAF", None),
        ("W64", None),
        ("WAV", None),
    ],
)
def test_of_joined_files_not_the_first_alone_is_read(kind: str, subtype: str | None) -> None:
    data = encoded(TONE_S, kind, subtype)
    heard = seconds_or_reason(data + data)
    if kind in ("MP3", "W64"):
        assert heard == pytest.approx(4, abs=0.3)
    else:
        assert heard == ("unreadable audio" if kind == "WAV" else MORE)


def halved(kind: str, mark: bytes, layout: str, header: int) -> bytes:
    """A file whose header tells half of the sound: a length behind the mark, of so many bytes more than the samples."""
    data = encoded(TONE_S, kind, "PCM_16")
    at = data.index(mark) + len(mark)
    return data[:at] + struct.pack(layout, len(TONE_S) + header) + data[at + struct.calcsize(layout) :]


@pytest.mark.parametrize(
    "data",
    [
        halved("AIFF", b"SSND", ">I", 8),
        halved("SVX", b"BODY", ">I", 0),
        halved("AU", b".snd\0\0\0\x18", ">I", 0),
        halved("CAF", b"data", ">Q", 4),
        halved("RF64", b"ds64\x1c\0\0\0" + struct.pack("<Q", 64096), "<Q", 0),
    ],
    ids=["AIFF", "SVX", "AU", "CAF", "RF64"],
)
def test_a_header_that_says_less_than_there_is_shortens_nothing(data: bytes) -> None:
    assert seconds_or_reason(data) in (2.0, MORE)


@pytest.mark.parametrize("embedded", [True, False])
def test_large_files_are_looked_at_like_small_ones(tmp_path: Path, embedded: bool) -> None:
    times_s = np.arange(25 * 96_000) / 96_000
    tone_SC = np.stack([0.3 * np.sin(2 * np.pi * 440 * times_s)] * 2, 1)
    path = tmp_path / "large"

    def read(data: bytes, **part: float) -> int:
        path.write_bytes(data)
        row = {"audio": data if embedded else None, "path": str(path), "start_s": None, "duration_s": None, **part}
        return len(read_samples(row, max_seconds=30))

    def large(kind: str) -> bytes:
        buffer = io.BytesIO()
        soundfile.write(buffer, tone_SC, 96_000, format=kind, subtype="PCM_24")
        return buffer.getvalue()

    wav = large("WAV")
    at = wav.index(b"data") + 4
    for says in (0, len(wav) // 2 // 6 * 6):
        lying = wav[:at] + struct.pack("<I", says) + wav[at + 4 :]
        assert read(lying) == 25 * RATE
        if not embedded:
            assert read(lying, start_s=23.5, duration_s=1.0) == RATE
    for kind in ("RF64", "W64"):
        data = large(kind)
        with pytest.raises(AudioError, match="truncated audio"):
            read(data[: int(0.8 * len(data))])


@pytest.mark.parametrize("scale", [2.0**15, 2.0**23, 2.0**31])
def test_floats_in_the_scale_of_whole_numbers_sound_the_same(scale: float) -> None:
    expected = decode_audio(encoded(TONE_S, "WAV", "FLOAT"))
    heard = decode_audio(encoded(TONE_S.astype(np.float64) * scale, "WAV", "DOUBLE"))
    assert np.abs(heard - expected).max() < 1e-4
    loud = decode_audio(encoded(4 * TONE_S, "WAV", "FLOAT"))
    assert np.abs(loud - 4 * expected).max() < 1e-4, "loud is loud"
    with pytest.raises(AudioError, match="of no known scale"):
        decode_audio(encoded(TONE_S.astype(np.float64) * 2.0**40, "WAV", "DOUBLE"))


def test_channels_that_cancel_each_other_are_not_silence() -> None:
    expected = decode_audio(encoded(TONE_S, "WAV", "PCM_16"))
    turned = decode_audio(encoded(np.stack([TONE_S, -TONE_S], 1), "WAV", "PCM_16"))
    assert np.abs(turned - expected).max() < 1e-3
    other_S = (0.2 * np.sin(2 * np.pi * 300 * TIMES_S)).astype(np.float32)
    both = decode_audio(encoded(np.stack([TONE_S, other_S], 1), "WAV", "PCM_16"))
    assert np.abs(both - (expected + other_S) / 2).max() < 1e-3, "others are averaged"


def by_pyav(path: Path, seconds: float, codec: str = "aac", **options: str) -> Path:
    """A file whose second k is a tone of 300 + 10 k Hz, as FFmpeg writes it."""
    av = pytest.importorskip("av")
    times_s = np.arange(int(seconds * RATE)) / RATE
    sound_S = (0.3 * np.sin(2 * np.pi * (300 + 10 * np.floor(times_s)) * times_s)).astype(np.float32)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.layout = "mono"
        for start in range(0, len(sound_S), 960):
            frame = av.AudioFrame.from_ndarray(sound_S[None, start : start + 960].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def hertz(samples_S: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples_S))) * RATE / len(samples_S))


def test_what_libsndfile_does_not_read_is_decoded_elsewhere(tmp_path: Path) -> None:
    row = {"audio": None, "path": str(by_pyav(tmp_path / "a.m4a", 2)), "start_s": None, "duration_s": None}
    assert abs(len(read_samples(row)) - 2 * RATE) < 0.2 * RATE
    assert abs(len(read_samples({**row, "start_s": 0.5, "duration_s": 1.0})) - RATE) < 0.1 * RATE
    with pytest.raises(AudioError, match=r"too long \(over 1 s\)"):
        read_samples(row, max_seconds=1.0)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.webm", "libopus", {}),
        ("a.mka", "libopus", {}),
        ("a.m4a", "aac", {"movflags": "faststart"}),
        ("b.m4a", "aac", {}),
    ],
)
def test_what_ffmpeg_reads_is_not_shortened_without_a_word(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    data = by_pyav(tmp_path / name, 6, codec, **options).read_bytes()
    assert abs(len(decode_audio(data)) - 6 * RATE) < 0.1 * RATE
    assert seconds_or_reason(data[: int(0.6 * len(data))]) in ("truncated audio", "unreadable audio")
    assert seconds_or_reason(data + data) in (MORE, pytest.approx(12, abs=0.2))


def test_of_a_long_recording_that_ffmpeg_reads_a_part_is_taken(tmp_path: Path) -> None:
    row = {"audio": None, "path": str(by_pyav(tmp_path / "long.m4a", 100))}
    part_S = read_samples({**row, "start_s": 10.0, "duration_s": 5.0}, max_seconds=30)
    assert len(part_S) == 5 * RATE
    assert [hertz(part_S[second * RATE : (second + 1) * RATE]) for second in range(5)] == pytest.approx(
        [400, 410, 420, 430, 440], abs=4
    )
    for start_s, length_s, reason in (
        (10.0, 31.0, r"too long \(over 30 s\)"),
        (98.0, 5.0, "truncated audio"),
        (101.0, 5.0, "part beyond the end of its recording"),
    ):
        with pytest.raises(AudioError, match=reason):
            read_samples({**row, "start_s": start_s, "duration_s": length_s}, max_seconds=30)
    with pytest.raises(AudioError, match=r"too long \(over 30 s\)"):
        read_samples(row, max_seconds=30)


def test_pipes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="no regular file"):
        read_samples({"audio": None, "path": str(tmp_path / "a.wav")})
