"""Short windows: an encoder that computes as many positions as a clip needs, and not its model's whole window.

Whisper's own window is 30 s for every clip. A student that was trained for it (`student.window: clip`) says so in its config
(`CLIP_MARGIN`); nothing else of its format differs, and with a whole window it works as any Whisper.

Shapes: B utterances, M mel channels, F mel frames, S encoder positions (two frames each), D width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperConfig

CLIP_MARGIN = "clip_margin"
"""Key of a model's config: encoder positions that it hears after the end of a clip. Without it a model hears whole windows."""


def clip_margin(config: WhisperConfig) -> int | None:
    """Of a model with a short window; None: it hears whole windows."""
    return getattr(config, CLIP_MARGIN, None)


def heard_frames(config: WhisperConfig, longest: int) -> int:
    """Mel frames of a batch that a model's encoder is given, where the longest clip has so many."""
    margin = clip_margin(config)
    return 2 * config.max_source_positions if margin is None else clip_frames(config, longest, margin)


def clip_frames(config: WhisperConfig, longest: int, margin: int) -> int:
    """Frames of a window that ends so many encoder positions after a clip, at most the model's whole one."""
    return 2 * min(config.max_source_positions, -(-longest // 2) + margin)


def encoder_states(encoder: Any, mel_BMF: Tensor) -> Tensor:
    """states_BSD of a Whisper encoder for as many frames as there are, the model's whole window or fewer.

    transformers' own forward wants the whole window. This is the same with the first positions only (as in whisper.cpp's
    `audio_ctx`); a whole window goes through the module itself.
    """
    positions = -(-mel_BMF.shape[-1] // 2)
    if positions == encoder.config.max_source_positions:
        return encoder(mel_BMF).last_hidden_state
    states_BDS = nn.functional.gelu(encoder.conv2(nn.functional.gelu(encoder.conv1(mel_BMF))))
    first_S = torch.arange(positions, device=mel_BMF.device)
    states_BSD = states_BDS.permute(0, 2, 1) + encoder.embed_positions(first_S)
    states_BSD = nn.functional.dropout(states_BSD, p=encoder.dropout, training=encoder.training)
    for layer in encoder.layers:
        states_BSD = layer(states_BSD, None)
    return encoder.layer_norm(states_BSD)
