"""Recordings longer than a model's window, transcribed as a whole by transformers. No Ray.

`sequential` is Whisper's own way: window after window, each beginning at the last timestamp of the one before, with what was
said before as prompt, and again at a higher temperature where the text repeats itself or is unlikely. `chunked` cuts the
recording into overlapping chunks that are decoded side by side and merged where their texts agree: faster, and independent of
what went before.

Shapes: S samples at 16 kHz.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raykd.config.training import LongFormConfig
from raykd.data.format import SAMPLE_RATE
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.evaluation.recogniser import ModelChoice, evaluation_dtype, lay_over
from raykd.models.whisper import load_processor, load_whisper

_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_RETRY = {"compression_ratio_threshold": 1.35, "logprob_threshold": -1.0, "no_speech_threshold": 0.6}
"""When a window is decoded again (openai/whisper, transcribe.py). transformers takes the compression ratio of token ids, where
1.35 stands for 2.4 of the text (its documentation of Whisper)."""


@dataclass(frozen=True)
class Segment:
    """What is said between two timestamps."""

    start_s: float
    end_s: float
    text: str


class LongFormRecogniser:
    """A model that transcribes whole recordings.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(self, choice: ModelChoice, config: LongFormConfig, batch_size: int, device: torch.device) -> None:
        self._choice, self._config, self._batch_size = choice, config, batch_size
        model: Any = load_whisper(choice.model, torch.float32, choice.revision)
        if choice.weights:
            lay_over(model, choice.weights)
        self._model = model.to(device, evaluation_dtype(choice.dtype, device)).eval()
        self._processor: Any = load_processor(choice.model, choice.revision)
        self.languages = LabelEncoder(choice.model, choice.revision).languages
        """Codes of those that the model knows."""
        if not hasattr(self._model.generation_config, "no_timestamps_token_id"):
            raise UserError(f"{choice.model}: its generation config has no timestamps, which long recordings need")

    def segments(self, samples_S: NDArray[np.float32], language: str, name: str = "") -> list[Segment]:
        """What is said in a recording, in order. What a retry draws follows from `name`."""
        torch.manual_seed(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big"))
        found = (
            self._chunked(samples_S, language) if self._config.method == "chunked" else self._sequential(samples_S, language)
        )
        end_s = len(samples_S) / SAMPLE_RATE
        cut = [Segment(min(one.start_s, end_s), min(one.end_s, end_s), one.text.strip()) for one in found]
        return [one for one in cut if one.text]

    @torch.no_grad()
    def _sequential(self, samples_S: NDArray[np.float32], language: str) -> list[Segment]:
        extractor = self._processor.feature_extractor
        long = len(samples_S) > extractor.n_samples
        features = extractor(
            samples_S,
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            truncation=not long,
            padding="longest" if long else "max_length",
            return_attention_mask=True,
        )
        made = self._model.generate(
            features.input_features.to(self._model.device, self._model.dtype),
            attention_mask=features.attention_mask.to(self._model.device),
            return_timestamps=True,
            return_segments=True,
            condition_on_prev_tokens=self._config.previous_text,
            temperature=_TEMPERATURES if self._config.retries else 0.0,
            **(_RETRY if self._config.retries else {}),
            **self._task(language),
        )
        decode = self._processor.tokenizer.decode
        return [
            Segment(float(one["start"]), float(one["end"]), decode(one["tokens"], skip_special_tokens=True))
            for one in made["segments"][0]
        ]

    def _chunked(self, samples_S: NDArray[np.float32], language: str) -> list[Segment]:
        made = self._pipeline(
            {"raw": samples_S, "sampling_rate": SAMPLE_RATE}, return_timestamps=True, generate_kwargs=self._task(language)
        )
        end_s = len(samples_S) / SAMPLE_RATE
        return [Segment(float(start or 0.0), end_s if end is None else float(end), text) for (start, end), text in _spans(made)]

    @cached_property
    def _pipeline(self) -> Any:
        from transformers import pipeline

        extractor, tokenizer = self._processor.feature_extractor, self._processor.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return pipeline(
            "automatic-speech-recognition",
            model=self._model,
            tokenizer=tokenizer,
            feature_extractor=extractor,
            chunk_length_s=min(self._config.chunk_s, extractor.n_samples / SAMPLE_RATE),
            batch_size=self._batch_size,
            device=self._model.device,
            ignore_warning=True,
        )

    def _task(self, language: str) -> dict[str, Any]:
        """Language and task, which an English-only model cannot be told."""
        multilingual = getattr(self._model.generation_config, "is_multilingual", True)
        return {"language": language, "task": "transcribe"} if multilingual else {}


def _spans(made: dict[str, Any]) -> list[tuple[tuple[float | None, float | None], str]]:
    return [(one["timestamp"], one["text"]) for one in made["chunks"]]
