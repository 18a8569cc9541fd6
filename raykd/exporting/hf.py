"""A folder for transformers: `WhisperForConditionalGeneration.from_pretrained` and `WhisperProcessor`."""

from typing import Any

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from raykd.data.mel import frames_of
from raykd.exporting.clips import Clip
from raykd.exporting.runtime import Runtime, Window
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.models.window import heard_frames

PROGRAMS = ("transformers",)
QUANTIZATIONS = ("float32", "float16", "bfloat16")


def convert(model: WhisperForConditionalGeneration, processor: WhisperProcessor, out: str, quantization: str) -> None:
    """Write the folder, weights in that type."""
    model.to(getattr(torch, quantization))
    save_whisper(model, processor, out)


def runtimes(out: str, windows: tuple[Window, ...], quantization: str) -> list[Runtime]:
    """transformers' own `generate`."""
    tolerance = 0.0 if quantization == "float32" else 0.03
    return [Runtime("transformers", _Generate(out, getattr(torch, quantization)), windows, tolerance, quantization)]


class _Generate:
    def __init__(self, out: str, dtype: torch.dtype) -> None:
        self._model: Any = load_whisper(out, dtype)
        self._processor: Any = load_processor(out)
        self._positions = self._model.model.encoder.embed_positions.weight

    def __call__(self, clip: Clip, window: Window) -> str:
        features: Any = self._processor.feature_extractor(clip.samples_S, sampling_rate=16_000, return_tensors="pt")
        mel_BMF = features.input_features.to(self._model.dtype)
        config = self._model.config
        config.max_source_positions = len(self._positions)
        frames = mel_BMF.shape[-1]
        if window == "clip":
            frames = heard_frames(config, frames_of(len(clip.samples_S), frames))
        # The lines of README.md: a model of as many positions as the clip needs.
        config.max_source_positions = frames // 2
        self._model.model.encoder.embed_positions = nn.Embedding.from_pretrained(self._positions[: frames // 2])
        multilingual = self._model.generation_config.is_multilingual
        most = config.max_target_positions // 2
        spoken = {"language": clip.language, "task": "transcribe"} if multilingual else {}
        with torch.inference_mode():
            ids_BT = self._model.generate(mel_BMF[..., :frames], num_beams=1, do_sample=False, max_new_tokens=most, **spoken)
        return str(self._processor.batch_decode(ids_BT, skip_special_tokens=True)[0]).strip()
