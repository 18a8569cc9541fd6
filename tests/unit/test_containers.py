"""Headers of audio that do not tell the truth, and sound that is written in odd ways."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from raykd.data.audio import AudioError, decode_audio, read_samples
from raykd.data.containers import with_length

RATE = 16_000
TIMES_S = np.arange(2 * RATE) / RATE
TONE_S = (0.3 * np.sin(2 * np.pi * 440 * TIMES_S) * np.linspace(0.2, 1, len(TIMES_S))).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=kind, subtype=subtype)
    return buffer.getvalue()


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
        assert with_length(wav + behind) == wav + behind
        assert len(decode_audio(wav + behind)) == len(TONE_S)


def test_an_mp3_without_a_length_is_read_whole() -> None:
    noise_S = 0.2 * np.random.default_rng(0).standard_normal(len(TONE_S) // 2).astype(np.float32)
    mp3 = encoded(np.concatenate([np.zeros(RATE // 2, np.float32), noise_S, TONE_S]), "MP3")
    whole = decode_audio(mp3)
    bare = decode_audio(without_xing(mp3))
    assert abs(len(bare) - len(whole)) < 0.1 * RATE
    assert with_length(mp3) == mp3, "one that says its length is left alone"


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
    ],
)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.85])
def test_a_file_that_was_cut_off_is_not_shortened_without_a_word(kind: str, subtype: str | None, share: float) -> None:
    data = encoded(TONE_S, kind, subtype)
    assert abs(len(decode_audio(data)) - len(TONE_S)) < 0.05 * RATE
    with pytest.raises(AudioError):
        decode_audio(data[: int(share * len(data))])


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


def test_what_libsndfile_does_not_read_is_decoded_elsewhere(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE)
        frame = av.AudioFrame.from_ndarray(TONE_S[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    row = {"audio": None, "path": str(path), "start_s": None, "duration_s": None}
    assert abs(len(read_samples(row)) - len(TONE_S)) < 0.2 * RATE
    assert abs(len(read_samples({**row, "start_s": 0.5, "duration_s": 1.0})) - RATE) < 0.1 * RATE
    with pytest.raises(AudioError, match=r"too long \(over 1 s\)"):
        read_samples(row, max_seconds=1.0)


def test_pipes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="no regular file"):
        read_samples({"audio": None, "path": str(tmp_path / "a.wav")})
