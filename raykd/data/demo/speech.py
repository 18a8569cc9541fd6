"""Text to speech in this process: eSpeak NG through ctypes.

eSpeak NG is licensed GPL-3.0-or-later. raykd contains nothing of it: the library and its voices come with the separately
installed `espeakng-loader` package and are loaded at run time, only when demo speech is made.

Shapes: S samples at 16 kHz.
"""

import _ctypes
import ctypes
import threading
from dataclasses import dataclass

import espeakng_loader
import numpy as np
import soxr

from raykd.data.format import SAMPLE_RATE

VARIANTS = ("", "f1", "f2", "f3", "f4", "m1", "m2", "m3", "m4", "m6", "m7", "klatt", "klatt4", "Annie", "Andy", "linda")
"""Voices of train, dev and test; the empty one is the language's own."""
UNSEEN_VARIANTS = ("f5", "m5", "m8", "klatt2", "belinda", "Mario")
"""Voices that only test_ood has."""

_RETRIEVAL_IN_THIS_THREAD, _UTF8, _BY_CHARACTER = 2, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_ONE_AT_A_TIME = threading.Lock()
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """Who speaks and how."""

    language: str
    variant: str = ""
    rate: int = 170
    """Words a minute."""
    pitch: int = 50
    """0 to 100."""
    pitch_range: int = 50
    """0 (monotonous) to 100."""

    @property
    def name(self) -> str:
        """eSpeak's name of the voice, such as `cs+f1`."""
        return f"{self.language}+{self.variant}" if self.variant else self.language


def speak(text: str, voice: Voice) -> np.ndarray:
    """The text spoken: float32 samples_S at 16 kHz, within -1 and 1; the same bits for the same arguments.

    eSpeak keeps oscillator and noise states between utterances, and neither its random seed nor its terminate call resets
    them. So each utterance loads the library afresh and unloads it again: that takes 2 ms and gives it new static memory.

    Raises:
        RuntimeError: eSpeak has no such voice or cannot speak.
    """
    chunks: list[bytes] = []

    @_CALLBACK
    def collect(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int | None) -> int:
        if count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    with _ONE_AT_A_TIME:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            rate = library.espeak_Initialize(_RETRIEVAL_IN_THIS_THREAD, 0, espeakng_loader.get_data_path().encode(), 0)
            library.espeak_SetSynthCallback(collect)
            if rate <= 0 or library.espeak_SetVoiceByName(voice.name.encode()) != 0:
                raise RuntimeError(f"eSpeak NG has no voice {voice.name}")
            for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
                library.espeak_SetParameter(parameter, value, 0)
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            encoded = text.encode() + b"\0"
            size = ctypes.c_size_t(len(encoded))
            if library.espeak_Synth(encoded, size, 0, _BY_CHARACTER, 0, _UTF8, None, None) != 0:
                raise RuntimeError(f"eSpeak NG cannot speak {text!r} as {voice.name}")
            library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)
    samples_S = np.frombuffer(b"".join(chunks), dtype=np.int16).astype(np.float32) / 32768
    return np.clip(soxr.resample(samples_S, rate, SAMPLE_RATE), -1, 1)
