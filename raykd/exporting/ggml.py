"""A file for whisper.cpp.

Its layout is that of whisper.cpp's `models/convert-h5-to-ggml.py` and, for 8 bits, of `examples/quantize`: sizes, mel filters,
the bytes of the tokens of text, then each tensor by its name in openai-whisper.
"""

import re
import struct
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from raykd import storage
from raykd.data.format import SAMPLE_RATE
from raykd.data.mel import frames_of
from raykd.errors import RunError
from raykd.exporting.clips import Clip
from raykd.exporting.runtime import Runtime, Window
from raykd.models.runtimes import WINDOW_POSITIONS
from raykd.models.window import clip_margin

PROGRAMS = ("pywhispercpp",)
"""Packages that it takes to write and try it."""
QUANTIZATIONS = ("float16", "q8_0")
"""whisper.cpp has no convolution for float32 weights."""
FILE = "ggml-model.bin"
SETTINGS = "clip_margin.txt"
_MAGIC = 0x67676D6C
_FILE_TYPES = {"float16": 1, "q8_0": 2007}
"""In the header; 2 000 is the version of quantised files."""
_TENSOR_TYPES = {"float32": 0, "float16": 1, "q8_0": 8}
_ALWAYS_WIDE = {"encoder.conv1.bias", "encoder.conv2.bias", "encoder.positional_embedding", "decoder.positional_embedding"}
_BLOCK = 32
"""Values with a scale of their own in q8_0."""
_SHORTEST_S = 1.1
"""whisper.cpp says nothing of shorter clips (under 0.1 s, in some versions under 1 s)."""
_NAMES = (
    (r"^model\.", ""),
    (r"\.layers\.(\d+)\.", r".blocks.\1."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.self_attn\.", ".attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"\.embed_positions\.weight$", ".positional_embedding"),
    (r"\.embed_tokens\.weight$", ".token_embedding.weight"),
)


def convert(model: WhisperForConditionalGeneration, processor: WhisperProcessor, out: str, quantization: str) -> None:
    """Write the file into the folder."""
    config = model.config
    Path(out).mkdir(parents=True, exist_ok=True)
    with open(Path(out, FILE), "wb") as file:
        _integers(
            file,
            *(_MAGIC, config.vocab_size, config.max_source_positions, config.d_model, config.encoder_attention_heads),
            *(config.encoder_layers, config.max_target_positions, config.d_model, config.decoder_attention_heads),
            *(config.decoder_layers, config.num_mel_bins, _FILE_TYPES[quantization]),
        )
        filters_MK = np.asarray(processor.feature_extractor.mel_filters, np.float32).T
        _integers(file, *filters_MK.shape)
        file.write(np.ascontiguousarray(filters_MK).tobytes())
        tokens = _tokens_of_text(processor)
        _integers(file, len(tokens))
        for token in tokens:
            _integers(file, len(token))
            file.write(token)
        for name, tensor in model.state_dict().items():
            if name != "proj_out.weight":  # the token embedding
                _write(file, _renamed(name), tensor.float().numpy(), quantization)
    margin = clip_margin(config)
    storage.write_text(str(Path(out, SETTINGS)), "" if margin is None else str(margin))


def runtimes(out: str, windows: tuple[Window, ...], quantization: str) -> list[Runtime]:
    """whisper.cpp, through pywhispercpp."""
    return [Runtime("whisper.cpp", _WhisperCpp(out), windows, 0.05)]


class _WhisperCpp:
    """In a process of its own: what whisper.cpp does not expect of a file ends the process."""

    def __init__(self, out: str) -> None:
        self._margin = int(storage.read_bytes(str(Path(out, SETTINGS))).decode() or 0)
        self._process = ProcessPoolExecutor(1, get_context("spawn"), _load, (str(Path(out, FILE)),))

    def __call__(self, clip: Clip, window: Window) -> str:
        samples_S = np.pad(clip.samples_S, (0, max(0, int(SAMPLE_RATE * _SHORTEST_S) - len(clip.samples_S))))
        positions = -(-frames_of(len(samples_S), 2 * WINDOW_POSITIONS) // 2) + self._margin
        heard = min(WINDOW_POSITIONS, positions) if window == "clip" else 0
        try:
            return self._process.submit(_transcribed, samples_S, clip.language, heard).result()
        except BrokenProcessPool:
            raise RunError(f"whisper.cpp ended while it read or transcribed {clip.id}; the export is not done") from None


_loaded: list[Any] = []
"""The model of this process."""


def _load(path: str) -> None:
    from pywhispercpp.model import Model

    _loaded.append(Model(path, redirect_whispercpp_logs_to=None, print_progress=False))


def _transcribed(samples_S: NDArray[np.float32], language: str, positions: int) -> str:
    segments = _loaded[0].transcribe(
        samples_S,
        language=language,
        temperature_inc=0.0,
        no_timestamps=True,
        single_segment=True,
        audio_ctx=positions,
        greedy={"best_of": 1},
    )
    return " ".join(segment.text.strip() for segment in segments).strip()


def _renamed(name: str) -> str:
    for old, new in _NAMES:
        name = re.sub(old, new, name)
    return name


def _write(file: BinaryIO, name: str, values: NDArray[np.float32], quantization: str) -> None:
    if name in {"encoder.conv1.bias", "encoder.conv2.bias"}:
        values = values[:, None]
    kind = quantization
    if values.ndim < 2 or name in _ALWAYS_WIDE:
        kind = "float32"
    elif values.ndim > 2 and kind == "q8_0":
        kind = "float16"
    encoded = name.encode()
    _integers(file, values.ndim, len(encoded), _TENSOR_TYPES[kind], *reversed(values.shape))
    file.write(encoded)
    if kind == "q8_0":
        file.write(_eight_bits(values))
    else:
        file.write(np.ascontiguousarray(values.astype(np.float16 if kind == "float16" else np.float32)).tobytes())


def _eight_bits(values: NDArray[np.float32]) -> bytes:
    """Blocks of a float16 scale and 32 whole numbers, the largest 127."""
    blocks = values.reshape(-1, _BLOCK)
    scales = np.abs(blocks).max(1, keepdims=True) / 127
    numbers = np.round(blocks / np.where(scales == 0, 1, scales)).astype(np.int8)
    layout = np.dtype([("scale", np.float16), ("numbers", np.int8, _BLOCK)])
    packed = np.empty(len(blocks), layout)
    packed["scale"], packed["numbers"] = scales[:, 0].astype(np.float16), numbers
    return packed.tobytes()


def _tokens_of_text(processor: WhisperProcessor) -> list[bytes]:
    """The bytes of all tokens before the end of text; whisper.cpp names the others itself."""
    tokenizer: Any = processor.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    numbers = {character: byte for byte, character in bytes_to_unicode().items()}
    return [bytes(numbers[one] for one in tokenizer.convert_ids_to_tokens(number)) for number in range(end)]


def _integers(file: BinaryIO, *values: int) -> None:
    file.write(struct.pack(f"<{len(values)}i", *values))
