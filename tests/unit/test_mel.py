"""The log-mel equals WhisperFeatureExtractor's on the zero-padded window, within float16."""

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import WhisperFeatureExtractor

from raykd.data.mel import log_mel, pad_mel

WINDOW_FRAMES = 500
WINDOW_SAMPLES = 80_000
FLOAT16_TOLERANCE = 1.1e-3
"""One unit in the last place of float16 between 1 and 2, from rounding both the mel and its maximum."""


def speech_like(samples: int, seed: int = 0) -> NDArray[np.float32]:
    draws = np.random.default_rng(seed)
    t = np.arange(samples) / 16_000
    tone = np.sin(2 * np.pi * (200 + 300 * t) * t) * np.sin(2 * np.pi * 3 * t)
    return (0.3 * tone + 0.01 * draws.standard_normal(samples)).astype(np.float32)


def expected(samples: NDArray[np.float32], n_mels: int, window_s: int = 5) -> NDArray[np.float32]:
    extractor = WhisperFeatureExtractor(feature_size=n_mels, chunk_length=window_s)
    return extractor(samples, sampling_rate=16_000, return_tensors="np").input_features[0]


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize(
    "samples",
    [1, 150, 201, 480, 16_000, 47_999, *range(WINDOW_SAMPLES - 520, WINDOW_SAMPLES, 40), WINDOW_SAMPLES - 1, WINDOW_SAMPLES],
)
def test_padded_mel_equals_whispers_own(samples: int, n_mels: int) -> None:
    audio = speech_like(samples)
    mel = log_mel(audio, n_mels, WINDOW_FRAMES)
    padded = pad_mel(mel, WINDOW_FRAMES)
    assert mel.dtype == np.float16
    assert padded.shape == (n_mels, WINDOW_FRAMES)
    np.testing.assert_allclose(padded, expected(audio, n_mels), atol=FLOAT16_TOLERANCE, rtol=0)


def test_real_window_of_30_seconds() -> None:
    for seconds in (7.3, 30):
        audio = speech_like(int(seconds * 16_000))
        padded = pad_mel(log_mel(audio, 80, 3000), 3000)
        np.testing.assert_allclose(padded, expected(audio, 80, 30), atol=FLOAT16_TOLERANCE, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3, 1.0])
def test_quiet_audio_is_cut_off_as_whisper_does(scale: float) -> None:
    audio = (speech_like(20_000) * scale).astype(np.float32)
    padded = pad_mel(log_mel(audio, 80, WINDOW_FRAMES), WINDOW_FRAMES)
    np.testing.assert_allclose(padded, expected(audio, 80), atol=FLOAT16_TOLERANCE, rtol=0)


def test_only_frames_that_touch_audio_are_kept() -> None:
    assert log_mel(speech_like(16_000), 80, WINDOW_FRAMES).shape == (80, 102)
    assert log_mel(speech_like(WINDOW_SAMPLES), 80, WINDOW_FRAMES).shape == (80, WINDOW_FRAMES)


def test_audio_beyond_the_window_is_cut_off() -> None:
    audio = speech_like(WINDOW_SAMPLES + 9_000)
    mel = log_mel(audio, 80, WINDOW_FRAMES)
    np.testing.assert_allclose(mel, expected(audio[:WINDOW_SAMPLES], 80), atol=FLOAT16_TOLERANCE, rtol=0)


def test_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        log_mel(np.zeros(0, np.float32), 80, WINDOW_FRAMES)


def test_padding_is_written_into_the_given_array() -> None:
    mel = log_mel(speech_like(16_000), 80, WINDOW_FRAMES)
    batch = np.empty((2, 80, WINDOW_FRAMES), np.float32)
    assert pad_mel(mel, WINDOW_FRAMES, out=batch[1]).base is batch
    np.testing.assert_array_equal(batch[1], pad_mel(mel, WINDOW_FRAMES))
