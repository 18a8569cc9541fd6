"""New Whispers with random weights and Whisper's real multilingual vocabulary, made offline.

The byte-pair vocabulary comes from the file that the `openai-whisper` package carries (`whisper/assets/multilingual.tiktoken`);
the package is located but not imported, because importing it compiles numba code.
"""

import base64
import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from raykd.config.models import ScratchConfig
from raykd.errors import UserError
from raykd.models.whisper import MULTILINGUAL_VOCABULARY, POSITIONS_PER_S, feature_extractor_for, generation_config_for

N_MELS = 80
END_OF_TEXT = "<|endoftext|>"
START = "<|startoftranscript|>"
SPOKEN_LANGUAGES = tuple(code for code in LANGUAGES if code != "yue")
"""Languages with a token in the 51 865 vocabulary, in id order (Cantonese came with large-v3)."""
TASK_TOKENS = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>")
TIMESTAMPS = tuple(f"<|{i * 0.02:.2f}|>" for i in range(1501))


def new_whisper(dims: ScratchConfig, seed: int) -> WhisperForConditionalGeneration:
    """A Whisper of the given dimensions with random weights, float32, in eval mode, ready to train and to generate."""
    config = scratch_config(dims)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(config)
        _initialise_convolutions(model)
    model.generation_config = generation_config_for(demo_tokenizer(), config)
    return model.eval()


def demo_processor(dims: ScratchConfig) -> WhisperProcessor:
    """Whisper's multilingual tokenizer with a feature extractor of the model's window."""
    return WhisperProcessor(feature_extractor_for(scratch_config(dims)), demo_tokenizer())


def demo_tokenizer() -> WhisperTokenizer:
    """Whisper's multilingual tokenizer: 51 865 tokens with the ids of `openai/whisper-tiny` to `-large-v2`."""
    vocabulary, merges = _byte_pairs()
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=merges, pad_token=END_OF_TEXT)
    languages = [f"<|{code}|>" for code in SPOKEN_LANGUAGES]
    named = [END_OF_TEXT, START, *languages, *TASK_TOKENS]
    tokenizer.add_special_tokens({"extra_special_tokens": [AddedToken(t, normalized=False, special=True) for t in named]})
    # Timestamps are ordinary tokens in Whisper's files: the tokenizer finds the first one by "the id after the last special".
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in TIMESTAMPS])
    tokenizer.set_prefix_tokens()
    return tokenizer


def scratch_config(dims: ScratchConfig) -> WhisperConfig:
    """The config of a `new_whisper`."""
    end = MULTILINGUAL_VOCABULARY - len(TIMESTAMPS) - len(TASK_TOKENS) - len(SPOKEN_LANGUAGES) - 2
    return WhisperConfig(
        vocab_size=MULTILINGUAL_VOCABULARY,
        num_mel_bins=N_MELS,
        d_model=dims.width,
        encoder_layers=dims.encoder_layers,
        decoder_layers=dims.decoder_layers,
        encoder_attention_heads=dims.heads,
        decoder_attention_heads=dims.heads,
        encoder_ffn_dim=dims.ffn,
        decoder_ffn_dim=dims.ffn,
        max_source_positions=int(dims.window_s) * POSITIONS_PER_S,
        max_target_positions=dims.max_label_tokens,
        dropout=dims.dropout,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=end + 1,
        begin_suppress_tokens=None,
    )


def _initialise_convolutions(model: WhisperForConditionalGeneration) -> None:
    """Let the audio through at the scale of the position codes.

    transformers draws every weight from N(0, 0.02), made for widths around 1 000. In a narrow model that leaves the
    convolutions' output far smaller than the sinusoidal position codes (root mean square 0.7) that are added to it: 22 times at
    width 384, 35 times at 128, 60 times at 64. Training would first have to grow the convolutions. He et al. (2015, arXiv
    1502.01852) initialisation, N(0, sqrt(2 / fan_in)), brings the two to the same scale. Tried on strings of 30 synthetic word
    sounds (width 64, batch 16, one seed): cross-entropy 0.64 after 300 steps, 0.94 without.
    """
    encoder = model.model.encoder
    for convolution in (encoder.conv1, encoder.conv2):
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")


@lru_cache(maxsize=1)
def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in the spelling of byte-level BPE, from a tiktoken file.

    A tiktoken file holds byte strings with their ranks and leaves the merges implicit: the two parts of a token are what
    byte-pair encoding of its bytes ends in when only merges of lower rank may be used.
    """
    ranks: dict[bytes, int] = {}
    for line in _vocabulary_file().read_text("ascii").splitlines():
        encoded, number = line.split()
        ranks[base64.b64decode(encoded)] = int(number)
    spell = bytes_to_unicode()
    vocabulary = {"".join(spell[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _last_merge(token, rank, ranks)
            merges.append(("".join(spell[byte] for byte in left), "".join(spell[byte] for byte in right)))
    return vocabulary, merges


def _vocabulary_file() -> Path:
    spec = importlib.util.find_spec("whisper")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "assets" / "multilingual.tiktoken"
        if file.is_file():
            return file
    raise UserError("whisper/assets/multilingual.tiktoken not found; install openai-whisper, whose vocabulary new models use")


def _last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        _, best = min((ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]
