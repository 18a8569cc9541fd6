"""How big a Whisper is and how much arithmetic an utterance costs.

A multiplication with its addition counts as two operations; only matrix products and convolutions are counted (norms, softmax
and GELU are below one per cent). In the formulas: F mel frames, S encoder positions, T decoder tokens, D width, V vocabulary.
"""

from dataclasses import dataclass

from torch import nn
from transformers import WhisperConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model, tied ones once."""

    total: int
    trainable: int


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one forward pass over one utterance."""

    encoder: int
    decoder: int
    head: int

    @property
    def total(self) -> int:
        """Encoder, decoder and output head together."""
        return self.encoder + self.decoder + self.head


def count_parameters(model: nn.Module) -> ParameterCount:
    """Parameters of a whole model, before it is sharded."""
    parameters = list(model.parameters())
    return ParameterCount(
        total=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    )


def flops_per_utterance(
    config: WhisperConfig, frames: int | None = None, tokens: int = 32, shared_encoder: bool = False
) -> Flops:
    """Operations to turn one utterance into `tokens` tokens; a backward pass costs twice as much again.

    Whisper pads every utterance to its window, so `frames` is by default the window's. With `shared_encoder` the encoder states
    come from another model and cost nothing here. Attention is counted dense, as its kernels compute a teacher-forced pass;
    generating the same tokens one by one with a key-value cache skips the upper half of the decoder's self-attention, which is
    2 T (T - 1) D a layer less.
    """
    window = 2 * config.max_source_positions if frames is None else frames
    return Flops(
        encoder=0 if shared_encoder else _encoder(config, window),
        decoder=_decoder(config, window // 2, tokens),
        head=2 * tokens * config.d_model * config.vocab_size,
    )


def _encoder(config: WhisperConfig, F: int) -> int:
    D, S = config.d_model, F // 2
    convolutions = 2 * 3 * F * config.num_mel_bins * D + 2 * 3 * S * D * D
    projections = 2 * 4 * S * D * D
    attention = 2 * 2 * S * S * D
    feed_forward = 2 * 2 * S * D * config.encoder_ffn_dim
    return convolutions + config.encoder_layers * (projections + attention + feed_forward)


def _decoder(config: WhisperConfig, S: int, T: int) -> int:
    D = config.d_model
    self_attention = 2 * 4 * T * D * D + 2 * 2 * T * T * D
    # Queries and output for each token, keys and values for each encoder position: once an utterance, also with a cache.
    cross_attention = 2 * 2 * T * D * D + 2 * 2 * S * D * D + 2 * 2 * T * S * D
    feed_forward = 2 * 2 * T * D * config.decoder_ffn_dim
    return config.decoder_layers * (self_attention + cross_attention + feed_forward)
