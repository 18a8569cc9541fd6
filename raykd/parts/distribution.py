"""Distributions over the next token: what a student can be taught by.

Shapes: N valid tokens (of a batch, or of a chunk of it), V vocabulary, D width of the hidden states, K likeliest tokens,
E = K + 1 events.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LOG_ZERO = -1e30
"""Stands for log 0. Finite, so that 0 * log 0 is 0 and not NaN."""
_NEARLY_ALL = math.log1p(-1e-6)
"""Most that a tail may have of the probability, so that something is left to share out."""


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


@dataclass(frozen=True)
class TopKDistribution:
    """The K likeliest tokens with their own probabilities, and all others together as one more event, the tail.

    Nothing is renormalised: what the K tokens lack to 1 is the tail's. `terms.term.over_events` compares these K + 1 events;
    `log_probs` is for whoever wants all tokens, and shares the tail out evenly (ours).
    """

    tokens_NK: Tensor
    """int64."""
    log_probs_NK: Tensor
    """At temperature 1, but for a constant of each token."""
    log_tail_N: Mapping[float, Tensor]
    """log of the tail's probability at each temperature that may be asked for."""
    vocabulary: int

    @property
    def shape(self) -> tuple[int, int]:
        """Valid tokens N and size of the vocabulary V."""
        return len(self.tokens_NK), self.vocabulary

    @torch.no_grad()
    def events(self, tokens: slice, temperature: float) -> tuple[Tensor, Tensor]:
        """tokens_NK, and log_NE of the E = K + 1 events at a temperature, the tail last.

        The tail's probability at the temperature was kept, and the K tokens share the rest by p^(1 / temperature).

        Raises:
            ValueError: the tail is not known at this temperature.
        """
        if temperature not in self.log_tail_N:
            known = ", ".join(f"{one:g}" for one in self.log_tail_N)
            raise ValueError(f"the tail's probability is kept at temperature {known}, not {temperature:g}")
        log_tail_N1 = self.log_tail_N[temperature][tokens, None].float().clamp(LOG_ZERO, _NEARLY_ALL)
        kept_NK = torch.log_softmax(self.log_probs_NK[tokens].float() / temperature, -1) + torch.log1p(-log_tail_N1.exp())
        return self.tokens_NK[tokens], torch.cat((kept_NK, log_tail_N1), -1)

    @torch.no_grad()
    def log_probs(self, tokens: slice, temperature: float) -> Tensor:
        """See `TokenDistribution`."""
        tokens_NK, log_NE = self.events(tokens, temperature)
        others = self.vocabulary - tokens_NK.shape[1]
        log_NV = (log_NE[:, -1:] - math.log(max(1, others))).repeat(1, self.vocabulary)
        return log_NV.scatter_(1, tokens_NK, log_NE[:, :-1])


def log_softmax(logits_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) over the vocabulary, in float32, or in float64 where the logits are."""
    if logits_NV.dtype != torch.float64:
        logits_NV = logits_NV.float()
    return torch.log_softmax(logits_NV if temperature == 1 else logits_NV / temperature, dim=-1)
