"""A base model and a file for each language's experts, which go into any copy of it: for `raykd.models.expert_files`."""

from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from raykd import storage
from raykd.data.batches import collate
from raykd.data.text import LabelEncoder
from raykd.evaluation.decode import encode, transcribe
from raykd.exporting.clips import Clip
from raykd.exporting.runtime import Runtime, Window
from raykd.models.expert_files import load_expert, plain_whisper, save_expert
from raykd.models.experts import expert_languages, with_experts
from raykd.models.routing import speaking
from raykd.models.whisper import load_whisper, save_whisper
from raykd.models.window import clip_frames, clip_margin

PROGRAMS = ("transformers",)
QUANTIZATIONS = ("float32",)
BASE, FILES = "base", "experts"


def convert(model: WhisperForConditionalGeneration, processor: WhisperProcessor, out: str, quantization: str) -> None:
    """Write `base/`, a plain Whisper, and `experts/<language>.safetensors`."""
    experts: Any = model
    save_whisper(plain_whisper(model, None), processor, storage.join(out, BASE))
    for language in expert_languages(model.config):
        save_expert(experts, language, storage.join(out, FILES, f"{language}.safetensors"))


def runtimes(out: str, windows: tuple[Window, ...], quantization: str) -> list[Runtime]:
    """The base model with the experts of all files loaded into it."""
    return [Runtime("raykd, experts from files", _FromFiles(out), windows, computes_in=quantization)]


class _FromFiles:
    def __init__(self, out: str) -> None:
        folder = storage.join(out, BASE)
        self._labels = LabelEncoder(folder)
        self._model = with_experts(load_whisper(folder))
        for name in storage.list_dir(storage.join(out, FILES)):
            load_expert(self._model, storage.join(out, FILES, name))

    @torch.inference_mode()
    def __call__(self, clip: Clip, window: Window) -> str:
        config = self._model.config
        utterance = clip.utterance(config.num_mel_bins, 2 * config.max_source_positions)
        margin = clip_margin(config)
        frames = 2 * config.max_source_positions
        if window == "clip" and margin is not None:
            frames = clip_frames(config, utterance.mel.shape[1], margin)
        batch = collate([utterance], frames, self._labels.pad_id)
        with speaking(self._model, batch.languages):
            states_BSD = encode(self._model, batch.mel_BMF)
        return transcribe(self._model, self._labels, states_BSD, batch.languages, config.max_target_positions // 2)[0]
