"""What the recording does to speech: level, silence, and for test_ood a room and its noise.

Shapes: S samples at 16 kHz.
"""

import numpy as np

from raykd.data.format import SAMPLE_RATE


def recorded(samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The utterance with a peak between -12 and -3 dB of full scale and 0.05 to 0.2 s of silence at either end."""
    before, after = (rng.uniform(0.05, 0.2, size=2) * SAMPLE_RATE).astype(int)
    peak = 10 ** (rng.uniform(-12, -3) / 20)
    loudest = max(float(np.abs(samples_S).max()), 1e-9)
    return np.pad(samples_S * np.float32(peak / loudest), (before, after))


def in_room(samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The utterance in a reverberating room (T60 of 0.2 to 0.5 s), as long as before.

    The impulse response is the direct sound and a tail of Gaussian noise that decays by 60 dB within T60 (Polack's model),
    6 to 12 dB below the direct sound in total energy.
    """
    t60 = rng.uniform(0.2, 0.5)
    time = np.arange(int(t60 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    tail[: SAMPLE_RATE // 500] = 0  # nothing comes back within 2 ms
    tail *= 10 ** (-rng.uniform(6, 12) / 20) / np.linalg.norm(tail)
    tail[0] = 1
    size = len(samples_S) + len(tail) - 1
    echoed = np.fft.irfft(np.fft.rfft(samples_S, size) * np.fft.rfft(tail, size), size)
    return echoed[: len(samples_S)].astype(np.float32)


def with_noise(samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The utterance in stationary noise, 10 to 25 dB below the speech; its power falls as 1 / frequency ** (0 to 2)."""
    frequency = np.fft.rfftfreq(len(samples_S), 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(len(samples_S))) / np.maximum(frequency, 50) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, len(samples_S))
    snr = 10 ** (rng.uniform(10, 25) / 20)
    level = np.linalg.norm(samples_S) / max(float(np.linalg.norm(noise)), 1e-9) / snr
    return (samples_S + level * noise).astype(np.float32)
