"""The divergences: value per token, and gradient in closed form.

Shapes: N tokens, V vocabulary.

With q the target, p = softmax(u) the student and u its logits divided by its temperature, every function returns values_N,
summed over the vocabulary, and, given `into_NV`, adds `scale` times the gradient of each token's value with respect to u to it.
Writing the gradients out costs one softmax for all terms of a temperature, where automatic differentiation would keep several
tensors for each term. All of them follow from dp_i/du_j = p_i (1[i=j] - p_j).
"""

import math
from functools import cached_property

import torch
from torch import Tensor


class LogProbs:
    """log_NV of a distribution; the probabilities are computed when a term first asks for them."""

    def __init__(self, log_NV: Tensor) -> None:
        self.log_NV = log_NV

    @cached_property
    def probs(self) -> Tensor:
        """The probabilities, of shape NV."""
        return self.log_NV.exp()


def cross_entropy(
    student: LogProbs, labels_N: Tensor, label_smoothing: float = 0.0, into_NV: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """-(1 - e) log p[label] - e/V sum_v log p[v], with e the label smoothing, as in PyTorch. Gradient: p - target."""
    log_NV, label_N1 = student.log_NV, labels_N[:, None]
    even = label_smoothing / log_NV.shape[-1]
    values_N = -(1 - label_smoothing) * log_NV.gather(1, label_N1).squeeze(1)
    if even:
        values_N -= even * log_NV.sum(-1)
    if into_NV is not None:
        into_NV.add_(student.probs, alpha=scale)
        if even:
            into_NV.sub_(scale * even)
        into_NV.scatter_add_(1, label_N1, log_NV.new_full(label_N1.shape, -scale * (1 - label_smoothing)))
    return values_N


def kl(student: LogProbs, target: LogProbs, into_NV: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """KL(q || p) = sum q (log q - log p). Gradient: p - q."""
    values_N = (target.log_NV - student.log_NV).mul_(target.probs).sum(-1)
    if into_NV is not None:
        into_NV.add_(student.probs, alpha=scale).sub_(target.probs, alpha=scale)
    return values_N


def reverse_kl(student: LogProbs, target: LogProbs, into_NV: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """KL(p || q) = sum p (log p - log q). Gradient: p (log p - log q - KL)."""
    share_NV = (student.log_NV - target.log_NV).mul_(student.probs)
    values_N = share_NV.sum(-1)
    if into_NV is not None:
        share_NV.addcmul_(student.probs, values_N[:, None], value=-1)
        into_NV.add_(share_NV, alpha=scale)
    return values_N


def js(student: LogProbs, target: LogProbs, mix: float = 0.5, into_NV: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """mix KL(q || m) + (1 - mix) KL(p || m), with m = mix q + (1 - mix) p; the usual Jensen-Shannon divergence at mix 0.5.

    Gradient: p (g - sum p g), with g = (1 - mix) (log p - log m). The mixture is taken on logarithms, so that a token that has
    underflowed on both sides gives 0 and not NaN.
    """
    log_m_NV = torch.logaddexp(target.log_NV + math.log(mix), student.log_NV + math.log(1 - mix))
    target_N = (target.log_NV - log_m_NV).mul_(target.probs).sum(-1)
    share_NV = torch.sub(student.log_NV, log_m_NV, out=log_m_NV).mul_(student.probs)
    student_N = share_NV.sum(-1)
    if into_NV is not None:
        share_NV.addcmul_(student.probs, student_N[:, None], value=-1)
        into_NV.add_(share_NV, alpha=scale * (1 - mix))
    return mix * target_N + (1 - mix) * student_N
