"""A folder for CTranslate2 and faster-whisper."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from raykd import storage
from raykd.data.mel import log_mel, pad_mel
from raykd.data.text import LabelEncoder
from raykd.exporting.clips import Clip
from raykd.exporting.runtime import Runtime, Window
from raykd.models.runtimes import LABEL_POSITIONS, WINDOW_POSITIONS
from raykd.models.whisper import read_config, save_whisper
from raykd.models.window import heard_frames

PROGRAMS = ("ctranslate2", "faster_whisper")
QUANTIZATIONS = ("float32", "int8", "int8_float32", "float16", "int8_float16", "bfloat16", "int8_bfloat16", "int16")
_TOKENIZER = "tokenizer"
"""Folder inside of the export with what is not CTranslate2's: the student's config and tokenizer."""
_OWN_FEATURES = 0.03
_AS_FAR_AS_POSSIBLE = "default"
"""Computing in the type of the weights, or the nearest one that this machine has: few CPUs have float16."""
_ROUNDED = 0.05


def convert(model: WhisperForConditionalGeneration, processor: WhisperProcessor, out: str, quantization: str) -> None:
    """Write the folder with CTranslate2's own converter, and the files that faster-whisper reads beside the weights."""
    from ctranslate2.converters import TransformersConverter

    with storage.temporary_dir() as folder:
        save_whisper(model, processor, folder)
        files = ["tokenizer.json", "preprocessor_config.json"]
        TransformersConverter(folder, copy_files=files).convert(out, quantization=quantization, force=True)
        kept = Path(out, _TOKENIZER)
        kept.mkdir(exist_ok=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(Path(folder, name), kept / name)


def runtimes(out: str, windows: tuple[Window, ...], quantization: str) -> list[Runtime]:
    """CTranslate2 with raykd's features; faster-whisper where the model has the positions that it counts on."""
    config = read_config(str(Path(out, _TOKENIZER)))
    rounded = 0.0 if quantization == "float32" else _ROUNDED
    direct = _Direct(out, config)
    found = [Runtime("CTranslate2", direct, windows, rounded, direct.computes_in)]
    if (config.max_source_positions, config.max_target_positions) == (WINDOW_POSITIONS, LABEL_POSITIONS):
        tolerance = max(rounded, _OWN_FEATURES)
        found.append(Runtime("faster-whisper", _FasterWhisper(out, config), windows, tolerance, direct.computes_in))
    return found


class _Direct:
    def __init__(self, out: str, config: WhisperConfig) -> None:
        import ctranslate2

        self._ctranslate2: Any = ctranslate2
        self._model: Any = ctranslate2.models.Whisper(
            out, device="cpu", compute_type=_AS_FAR_AS_POSSIBLE, intra_threads=_threads()
        )
        self.computes_in = str(self._model.compute_type)
        self._config, self._labels = config, LabelEncoder(str(Path(out, _TOKENIZER)))

    def __call__(self, clip: Clip, window: Window) -> str:
        whole = 2 * self._config.max_source_positions
        mel_MF = log_mel(clip.samples_S, self._config.num_mel_bins, whole)
        frames = heard_frames(self._config, mel_MF.shape[1]) if window == "clip" else whole
        mel = self._ctranslate2.StorageView.from_array(pad_mel(mel_MF, frames)[None])
        prefix = self._labels.prefix(clip.language)
        (said,) = self._model.generate(mel, [prefix], beam_size=1, max_length=self._config.max_target_positions)
        return self._labels.decode(said.sequences_ids[0])


class _FasterWhisper:
    def __init__(self, out: str, config: WhisperConfig) -> None:
        self._model = clip_whisper(out, config, device="cpu", compute_type=_AS_FAR_AS_POSSIBLE, cpu_threads=_threads())

    def __call__(self, clip: Clip, window: Window) -> str:
        self._model.short = window == "clip"
        segments, _ = self._model.transcribe(
            clip.samples_S,
            language=clip.language,
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
        )
        return " ".join(segment.text.strip() for segment in segments)


def clip_whisper(folder: str, config: WhisperConfig | None = None, **options: Any) -> Any:
    """A `faster_whisper.WhisperModel` that gives the encoder a clip and its margin where `short` is set (it is at first).

    faster-whisper fills every segment to 30 s; here what it filled is cut off again before it is encoded. `options` are those
    of `WhisperModel`.
    """
    from faster_whisper import WhisperModel

    dimensions = config or read_config(str(Path(folder, _TOKENIZER)))

    class ClipWhisper(WhisperModel):
        short = True

        def encode(self, features: NDArray[np.float32]) -> Any:
            if not self.short:
                return super().encode(features[..., : 2 * dimensions.max_source_positions])
            mels_BMF = features.reshape(-1, *features.shape[-2:])
            spoken = np.flatnonzero(mels_BMF.any((0, 1)))
            longest = int(spoken[-1]) + 1 if len(spoken) else 1
            frames = heard_frames(dimensions, longest)
            # faster-whisper fills with zeros, which are no silence: Whisper's own lies below all that is heard.
            return super().encode(np.stack([pad_mel(mel_MF[:, :longest], frames) for mel_MF in mels_BMF]))

    return ClipWhisper(folder, **options)


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
