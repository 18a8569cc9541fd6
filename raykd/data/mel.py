"""Whisper's log-mel spectrogram, computed for the frames that touch audio only.

Whisper's own extractor pads every clip with zeros to its window before the transform, so most of its work goes into
silence. The padded frames all hold one value, which follows from the loudest frame; `pad_mel` puts it back.

Shapes: S samples at 16 kHz, M mel channels, F frames of 10 ms, T window samples.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from raykd.data.format import SAMPLE_RATE

N_FFT = 400
HOP = 160
_REACH = N_FFT // 2
"""Samples a frame covers to either side of its centre."""
DYNAMIC_RANGE = 2.0
"""The extractor cuts everything 8 log10 units (2.0 after its scaling by 1/4) below the loudest value."""
_SILENCE = -1.5
"""Scaled value of no energy at all: (log10(1e-10) + 4) / 4."""
_LOG10_E = 1 / math.log(10)
_BLOCK = 256
"""Frames transformed at once: they and their spectra stay in the processor's cache."""
_ROWS = 16
"""Frames of one matrix product. OpenBLAS runs so small a product in the calling thread; larger ones would set the threads of
pipelines on every core against each other."""


def log_mel(samples_S: NDArray[np.float32], n_mels: int, window_frames: int) -> NDArray[np.float16]:
    """The log-mel mel_MF of an utterance: mel channels by the frames that touch audio, at most `window_frames`.

    Equals the first F frames that `WhisperFeatureExtractor` computes for the zero-padded window, to float16: frames centred on
    every 160th sample, the window mirrored at both ends, power spectrum under a Hann window, Slaney mel filters, log10,
    cut at 8 below the maximum, (x + 4) / 4. Audio beyond the window is cut off.

    Raises:
        ValueError: there are no samples.
    """
    window_samples = window_frames * HOP
    samples_S = samples_S[:window_samples]
    if samples_S.size == 0:
        raise ValueError("log_mel needs at least one sample")
    n_frames = frames_of(samples_S.size, window_frames)
    n_computed = -(-n_frames // _ROWS) * _ROWS
    padded_T = _padded(samples_S, n_frames, n_computed, window_samples)
    frames_FN = sliding_window_view(padded_T, N_FFT)[::HOP][:n_computed]
    filters_KM = _mel_filters(n_mels)
    computed_MF = np.empty((n_mels, n_computed), np.float32)
    power_of = _PowerSpectrum(min(_BLOCK, n_computed))
    for start in range(0, n_computed, _BLOCK):
        block = slice(start, start + _BLOCK)
        power_FK = power_of(frames_FN[block])
        mel_FM = (power_FK.reshape(-1, _ROWS, power_FK.shape[1]) @ filters_KM).reshape(-1, n_mels)
        computed_MF[:, block] = mel_FM.T
    mel_MF = computed_MF[:, :n_frames]
    np.log(np.maximum(mel_MF, 1e-10, out=mel_MF), out=mel_MF)
    mel_MF *= _LOG10_E  # NumPy vectorises log and not log10
    np.maximum(mel_MF, mel_MF.max() - 4 * DYNAMIC_RANGE, out=mel_MF)
    mel_MF += 4.0
    mel_MF *= 0.25
    return mel_MF.astype(np.float16)


def frames_of(samples: int, window_frames: int) -> int:
    """Frames that touch so much audio, at most the window's."""
    return min(window_frames, -(-(samples + _REACH) // HOP))


class _PowerSpectrum:
    """Power under a Hann window of up to `rows` frames at a time, in memory that is used again and stays in the cache."""

    def __init__(self, rows: int) -> None:
        bins = N_FFT // 2 + 1
        self._windowed_FN = np.empty((rows, N_FFT), np.float32)
        self._spectrum_FK = np.empty((rows, bins), np.complex64)
        self._power_FK, self._imaginary_FK = np.empty((2, rows, bins), np.float32)

    def __call__(self, frames_FN: NDArray[np.float32]) -> NDArray[np.float32]:
        """power_FK, valid until the next call."""
        rows = slice(len(frames_FN))
        np.multiply(frames_FN, _hann(), out=self._windowed_FN[rows])
        out_FK: Any = self._spectrum_FK[rows]  # NumPy's stubs know complex128 only
        spectrum_FK = np.fft.rfft(self._windowed_FN[rows], axis=1, out=out_FK)
        power_FK = np.square(spectrum_FK.real, out=self._power_FK[rows])
        power_FK += np.square(spectrum_FK.imag, out=self._imaginary_FK[rows])
        return power_FK


def pad_mel(
    mel_MF: NDArray[np.floating[Any]], window_frames: int, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The mel of the whole window, float32 (M, window_frames), written into `out` when given.

    Frames of pure padding have no energy, which the extractor lifts to 8 log10 units below the loudest value.
    """
    n_mels, n_frames = mel_MF.shape
    window_MF = np.empty((n_mels, window_frames), np.float32) if out is None else out
    window_MF[:, :n_frames] = mel_MF
    window_MF[:, n_frames:] = max(_SILENCE, float(mel_MF.max()) - DYNAMIC_RANGE)
    return window_MF


def _padded(samples_S: NDArray[np.float32], n_frames: int, n_computed: int, window_samples: int) -> NDArray[np.float32]:
    """The mirrored, zero-padded window as far as the first `n_frames` frames see it, with zeros for `n_computed` frames."""
    padded_T = np.zeros(_REACH + max(samples_S.size, n_computed * HOP) + N_FFT, np.float32)
    padded_T[_REACH : _REACH + samples_S.size] = samples_S
    padded_T[:_REACH] = padded_T[2 * _REACH : _REACH : -1]
    if n_frames * HOP == window_samples:
        end = _REACH + window_samples
        padded_T[end : end + _REACH] = padded_T[end - 1 - _REACH : end - 1][::-1]
    return padded_T


@lru_cache(maxsize=1)
def _hann() -> NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)


@lru_cache(maxsize=4)
def _mel_filters(n_mels: int) -> NDArray[np.float32]:
    """filters_KM: Slaney-normalised triangles on the Slaney mel scale, 0 to 8 kHz, for the K = 201 frequency bins."""
    from transformers.audio_utils import mel_filter_bank

    filters_KM = mel_filter_bank(N_FFT // 2 + 1, n_mels, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return filters_KM.astype(np.float32)
