"""Distributions over the next token: what a student can be taught by.

Shapes: N valid tokens (of a batch, or of a chunk of it), V vocabulary, D width of the hidden states.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LOG_ZERO = -1e30
"""Stands for log 0. Finite, so that 0 * log 0 is 0 and not NaN."""


class TokenDistribution(Protocol):
    """A distribution over the vocabulary at every valid token. It is constant: no gradient ever flows into it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Valid tokens N and size of the vocabulary V."""

    def log_probs(self, tokens: slice, temperature: float) -> Tensor:
        """log_NV of softmax(logits / temperature) at the given valid tokens.

        float32, or float64 where the logits are; finite everywhere (`LOG_ZERO` where a token is impossible). The caller may
        overwrite the tensor.
        """


@dataclass(frozen=True)
class HeadDistribution:
    """A model's output head over its last hidden states; logits exist for one chunk of tokens at a time."""

    hidden_ND: Tensor
    weight_VD: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Valid tokens N and size of the vocabulary V."""
        return len(self.hidden_ND), len(self.weight_VD)

    @torch.no_grad()
    def log_probs(self, tokens: slice, temperature: float) -> Tensor:
        """See `TokenDistribution`. The product is taken in the weight's type, the softmax in float32 or wider."""
        hidden_ND = self.hidden_ND[tokens].to(self.weight_VD.dtype)
        return log_softmax(hidden_ND @ self.weight_VD.T, temperature)


@dataclass(frozen=True)
class LogitsDistribution:
    """Logits that exist already, of any floating type; -inf marks an impossible token."""

    logits_NV: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Valid tokens N and size of the vocabulary V."""
        tokens, vocabulary = self.logits_NV.shape
        return tokens, vocabulary

    @torch.no_grad()
    def log_probs(self, tokens: slice, temperature: float) -> Tensor:
        """See `TokenDistribution`."""
        return log_softmax(self.logits_NV[tokens], temperature).clamp_(min=LOG_ZERO)


class MixtureDistribution:
    """sum_i weight_i * p_i: several teachers as one. The temperature is applied to each part, before mixing."""

    def __init__(self, parts: Sequence[tuple[float, TokenDistribution]]) -> None:
        """Raises ValueError unless the weights are at least 0 and sum to 1."""
        weights = [weight for weight, _ in parts]
        if not parts or min(weights) < 0 or not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
            raise ValueError(f"the weights of a mixture are at least 0 and sum to 1 (got {weights})")
        self.parts = [(weight, part) for weight, part in parts if weight > 0]

    @property
    def shape(self) -> tuple[int, int]:
        """Valid tokens N and size of the vocabulary V. Raises ValueError where the parts differ."""
        shapes = {part.shape for _, part in self.parts}
        if len(shapes) > 1:
            raise ValueError(f"the parts of a mixture have different tokens or vocabularies: {sorted(shapes)}")
        return shapes.pop()

    @torch.no_grad()
    def log_probs(self, tokens: slice, temperature: float) -> Tensor:
        """See `TokenDistribution`."""
        (weight, part), *others = self.parts
        mixed_NV = part.log_probs(tokens, temperature).add_(math.log(weight))
        for weight, part in others:
            torch.logaddexp(mixed_NV, part.log_probs(tokens, temperature).add_(math.log(weight)), out=mixed_NV)
        return mixed_NV


def log_softmax(logits_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) over the vocabulary, in float32, or in float64 where the logits are."""
    if logits_NV.dtype != torch.float64:
        logits_NV = logits_NV.float()
    return torch.log_softmax(logits_NV if temperature == 1 else logits_NV / temperature, dim=-1)
