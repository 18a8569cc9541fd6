"""Audio that is not what its row says of it: the part is cut out, or the row is rejected; never another stretch of sound."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from raykd.data.audio import AudioError
from raykd.data.row_audio import samples_of

RATE = 16_000


def speech(seconds: float, channels: int = 1) -> bytes:
    """Second k has the amplitude 0.1 + 0.1 k."""
    time = np.arange(int(seconds * RATE)) / RATE
    samples = (0.1 + 0.1 * np.floor(time)) * np.sin(2 * np.pi * 300 * time)
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([samples] * channels, 1), RATE, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def row(audio: bytes | None = None, path: Path | None = None, **values: Any) -> dict[str, Any]:
    return {"audio": audio, "path": path and str(path), "start_s": None, "duration_s": None, "channel": None, **values}


@pytest.mark.parametrize(
    ("start_s", "duration_s", "seconds", "loudest"),
    [
        (1.0, 1.0, 1.0, 0.2),  # a part of the recording that is embedded
        (0.0, 3.0, 3.0, 0.3),
        (100.0, 4.0, 4.0, 0.4),  # cut out already, by these times of another recording
        (2.0, 4.1, 4.0, 0.4),
        (100.0, 5.0, 4.0, 0.4),
        (100.0, 1.0, 4.0, 0.4),  # in another unit
    ],
)
def test_embedded_audio_is_its_part_or_holds_it(start_s: float, duration_s: float, seconds: float, loudest: float) -> None:
    samples_S = samples_of(row(speech(4), start_s=start_s, duration_s=duration_s), 30.0)
    assert len(samples_S) == seconds * RATE
    assert np.abs(samples_S).max() == pytest.approx(loudest, abs=0.01)


def test_embedded_audio_that_is_neither_is_rejected() -> None:
    with pytest.raises(AudioError, match="neither is its part nor holds it"):
        samples_of(row(speech(4), start_s=3.5, duration_s=1.5))


@pytest.mark.parametrize(
    ("duration_s", "fits"), [(4.0, True), (3.9, True), (3.0, True), (9.0, True), (3.2, False), (1.0, False)]
)
def test_a_file_that_is_longer_than_its_row_says_lacks_an_offset(tmp_path: Path, duration_s: float, fits: bool) -> None:
    (tmp_path / "a.wav").write_bytes(speech(4))
    one = row(path=tmp_path / "a.wav", duration_s=duration_s)
    if fits:
        assert len(samples_of(one)) == 4 * RATE
    else:
        with pytest.raises(AudioError, match="longer than its duration"):
            samples_of(one)
    part = row(path=tmp_path / "a.wav", start_s=1.0, duration_s=1.0)
    assert np.abs(samples_of(part)).max() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("embedded", [True, False])
def test_a_channel_of_several_is_not_their_mean(tmp_path: Path, embedded: bool) -> None:
    for channels in (1, 2):
        (tmp_path / "a.wav").write_bytes(speech(1, channels))
        one = row(speech(1, channels), channel="0") if embedded else row(path=tmp_path / "a.wav", channel="left")
        if channels == 1:
            assert len(samples_of(one)) == RATE
        else:
            with pytest.raises(AudioError, match="one channel of several"):
                samples_of(one)
