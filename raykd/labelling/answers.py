"""A teacher's answers about a batch, as a cache keeps them.

Shapes: B utterances, N valid label positions, V vocabulary, K likeliest tokens, T temperatures, S encoder positions, D width.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from raykd.parts.distribution import HeadDistribution

StatesType = Literal["float16", "int8"]
_CHUNK = 1024
"""Tokens at once: their logits take 210 MB."""
_FLOAT16_LOWEST = -65504.0


@torch.no_grad()
def likeliest(head: HeadDistribution, k: int, temperatures: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """tokens_NK (int64) and log_probs_NK (float16, at temperature 1) of the likeliest tokens, likeliest first, and log_tail_NT:
    the logarithm of what all other tokens have together at each temperature (float32).
    """
    tokens, log_probs, tails = [], [], []
    for start in range(0, head.shape[0], _CHUNK):
        log_NV = head.log_probs(slice(start, start + _CHUNK), 1.0)
        log_NK, tokens_NK = log_NV.topk(k, -1)
        log_NV.scatter_(1, tokens_NK, -torch.inf)
        tokens.append(tokens_NK)
        log_probs.append(log_NK.clamp(min=_FLOAT16_LOWEST).half())
        tails.append(torch.stack([_log_tail(log_NK, log_NV, one) for one in temperatures], -1))
    if not tokens:
        empty = head.hidden_ND.new_empty
        return empty((0, k), dtype=torch.int64), empty((0, k), dtype=torch.float16), empty((0, len(temperatures)))
    return torch.cat(tokens), torch.cat(log_probs), torch.cat(tails)


def _log_tail(log_NK: Tensor, others_NV: Tensor, temperature: float) -> Tensor:
    """log of the tail's share of sum p^(1 / temperature)."""
    tail_N, kept_N = ((log / temperature).logsumexp(-1) for log in (others_NV, log_NK))
    return tail_N - torch.logaddexp(tail_N, kept_N)


def narrowed(states_BSD: Tensor, kind: StatesType) -> tuple[Tensor, Tensor | None]:
    """Encoder states as they are kept: float16, or int8 and scale_BD, the largest value of each channel over 127.

    Whisper's channels differ by a factor of ten in size, so that one scale for each costs a fifth of the error of one for each
    position (whisper-base: 0.6 % of the states' norm against 3.0 %).
    """
    if kind == "float16":
        return states_BSD.half(), None
    scale_BD = states_BSD.float().abs().amax(1).clamp_(min=1e-12) / 127
    return (states_BSD.float() / scale_BD[:, None]).round_().to(torch.int8), scale_BD
