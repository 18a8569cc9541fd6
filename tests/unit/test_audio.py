import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from raykd.data.audio import SAMPLE_RATE, AudioError, decode_audio, read_samples

SECONDS = 0.5


def tone(rate: int, hz: float = 440.0, seconds: float = SECONDS) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def encode(samples: np.ndarray, rate: int, kind: str = "WAV", width: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=width)
    return stream.getvalue()


def reason(encoded: bytes, max_seconds: float | None = None) -> str:
    with pytest.raises(AudioError) as caught:
        decode_audio(encoded, max_seconds)
    return caught.value.reason


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    ("kind", "width", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.02),
        ("WAV", "PCM_16", 0.002),
        ("WAV", "PCM_24", 0.002),
        ("WAV", "PCM_32", 0.002),
        ("WAV", "FLOAT", 0.002),
        ("FLAC", "PCM_S8", 0.02),
        ("FLAC", "PCM_24", 0.002),
        ("OGG", "VORBIS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_every_kind_width_and_rate_gives_the_same_tone(rate: int, kind: str, width: str, tolerance: float) -> None:
    samples_S = decode_audio(encode(tone(rate), rate, kind, width))
    assert samples_S.dtype == np.float32
    assert samples_S.ndim == 1
    assert abs(len(samples_S) - SECONDS * SAMPLE_RATE) <= 1
    middle = slice(1000, -1000)  # resampling and codecs ring at the ends
    np.testing.assert_allclose(samples_S[middle], tone(SAMPLE_RATE)[: len(samples_S)][middle], atol=tolerance)


def test_opus_keeps_length_and_pitch() -> None:
    samples_S = decode_audio(encode(tone(48_000, seconds=1.0), 48_000, "OGG", "OPUS"))
    assert len(samples_S) == SAMPLE_RATE
    assert np.argmax(np.abs(np.fft.rfft(samples_S))) == 440


def test_channels_are_averaged_and_not_summed() -> None:
    left, right = tone(44_100), 0.5 * tone(44_100, hz=1_000.0)
    stereo = decode_audio(encode(np.stack([left, right], axis=1), 44_100))
    np.testing.assert_allclose(stereo, decode_audio(encode((left + right) / 2, 44_100)), atol=1e-3)


def test_what_is_above_half_the_rate_is_filtered_out_and_not_folded_back() -> None:
    samples_S = decode_audio(encode(tone(48_000, hz=440.0) + tone(48_000, hz=12_000.0), 48_000, width="FLOAT"))
    np.testing.assert_allclose(samples_S[1000:-1000], tone(SAMPLE_RATE)[1000:-1000], atol=0.002)


@pytest.mark.parametrize("encoded", [b"no audio at all", b"\0" * 5_000, b"RIFF\x10\0\0\0WAVEfmt "])
def test_junk_is_unreadable(encoded: bytes) -> None:
    assert reason(encoded) == "unreadable audio"


@pytest.mark.parametrize(
    ("kind", "width"), [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")]
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_truncated_files_are_refused(kind: str, width: str, share: float) -> None:
    rng = np.random.default_rng(0)
    encoded = encode(rng.uniform(-0.5, 0.5, 32_000), 16_000, kind, width)
    assert reason(encoded[: int(share * len(encoded))]) in {"truncated audio", "unreadable audio"}


def test_a_wav_of_a_stream_without_length_is_read_to_its_end() -> None:
    encoded = bytearray(encode(tone(16_000), 16_000))
    start = encoded.index(b"data") + 4
    encoded[start : start + 4] = encoded[4:8] = b"\xff\xff\xff\xff"
    assert len(decode_audio(bytes(encoded))) == SECONDS * SAMPLE_RATE


def test_a_flac_of_a_stream_without_length_is_read_to_its_end() -> None:
    encoded = bytearray(encode(tone(16_000), 16_000, "FLAC"))
    encoded[21] &= 0xF0  # the 36-bit count of samples in STREAMINFO; 0 is "unknown"
    encoded[22:26] = b"\0\0\0\0"
    assert len(decode_audio(bytes(encoded))) == SECONDS * SAMPLE_RATE
    assert reason(bytes(encoded), max_seconds=0.4) == "too long (over 0.4 s)"


def test_nothing_and_silence_have_their_own_reasons() -> None:
    assert reason(encode(np.zeros(0, np.float32), 16_000)) == "empty audio"
    assert reason(encode(np.zeros(8_000, np.float32), 16_000)) == "silent audio"
    assert reason(encode(np.full(8_000, 0.3, np.float32), 16_000)) == "silent audio"
    assert len(decode_audio(encode(0.01 * tone(16_000), 16_000))) == 8_000


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(rate: int, bad: float) -> None:
    samples = tone(rate)
    samples[100] = bad
    assert reason(encode(samples, rate, width="FLOAT")) == "non-finite samples"


def test_a_long_file_is_refused_by_its_header() -> None:
    encoded = encode(tone(8_000, seconds=3.0), 8_000)
    assert reason(encoded, max_seconds=2.9) == "too long (over 2.9 s)"
    assert len(decode_audio(encoded, max_seconds=3.0)) == 3 * SAMPLE_RATE
    three_hours = bytearray(encoded[:44])
    three_hours[40:44] = (3 * 3600 * 8_000 * 2).to_bytes(4, "little")
    assert reason(bytes(three_hours) + b"\0" * 1_000_000, max_seconds=30) == "too long (over 30 s)"


def test_rows_are_read_from_bytes_local_paths_and_other_filesystems(tmp_path: Path) -> None:
    import fsspec

    encoded = encode(tone(16_000), 16_000)
    (tmp_path / "a.wav").write_bytes(encoded)
    with fsspec.open("memory://test-audio/clips/a.wav", "wb") as file:
        file.write(encoded)
    rows: list[dict[str, Any]] = [
        {"audio": encoded, "path": None},
        {"audio": None, "path": str(tmp_path / "a.wav")},
        {"audio": None, "path": (tmp_path / "a.wav").as_uri()},
        {"audio": None, "path": "fsspec+memory://test-audio/clips/a.wav"},
    ]
    for row in rows:
        np.testing.assert_array_equal(read_samples(row), decode_audio(encoded))
        with pytest.raises(AudioError, match="too long"):
            read_samples(row, max_seconds=0.1)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, "no audio"),
        ("nowhere.wav", "missing audio file"),
        (".", "missing audio file"),
        ("fsspec+memory://test-audio/nowhere.wav", "missing audio file"),
        ("nosuchscheme://bucket/a.wav", "unreadable audio file"),
        ("nul\0.wav", "unreadable audio file"),
    ],
)
def test_paths_that_lead_nowhere_are_reasons_and_not_crashes(path: str | None, expected: str) -> None:
    with pytest.raises(AudioError) as caught:
        read_samples({"audio": None, "path": path})
    assert caught.value.reason == expected


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_part_of_a_recording_is_the_part_of_its_samples(tmp_path: Path, kind: str) -> None:
    rate = 16_000
    samples = np.random.default_rng(0).normal(0, 0.1, 4 * rate).astype(np.float32)
    path = tmp_path / f"long.{kind.lower()}"
    soundfile.write(path, samples, rate, format=kind)
    whole = read_samples({"audio": None, "path": str(path)})
    for start_s, length_s in ((0.0, 1.0), (1.25, 1.5), (3.0, 1.02)):
        part = read_samples({"audio": None, "path": str(path), "start_s": start_s, "duration_s": length_s}, max_seconds=2)
        wanted = whole[round(start_s * rate) : round((start_s + length_s) * rate)]
        np.testing.assert_allclose(part[: len(wanted)], wanted[: len(part)], atol=2e-3 if kind == "OGG" else 1e-6)
        assert abs(len(part) - length_s * rate) <= 0.03 * rate


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)

    def reason(start_s: float, length_s: float) -> str:
        with pytest.raises(AudioError) as caught:
            read_samples({"audio": None, "path": str(path), "start_s": start_s, "duration_s": length_s}, max_seconds=5)
        return caught.value.reason

    assert reason(2.5, 1.0) == "part beyond the end of its recording"
    assert reason(1.5, 1.0) == "truncated audio"
    assert reason(0.0, 6.0) == "too long (over 5 s)"


def test_a_file_as_long_as_its_part_was_cut_already(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    assert np.array_equal(read_samples({"audio": None, "path": str(path), "start_s": 7.0, "duration_s": 2.01}), samples)
