"""Reverse Kullback-Leibler divergence. Shapes: N tokens, V vocabulary."""

from typing import Literal

from torch import Tensor

from raykd.parts.terms.term import Divergence, LogProbs, add_scaled


class ReverseKl(Divergence):
    """KL(p || q) = sum p (log p - log q), with q the target and p the student. Gradient: p (log p - log q - KL)."""

    kind: Literal["reverse_kl"] = "reverse_kl"

    def between(self, student: LogProbs, target: LogProbs, into_NV: Tensor | None, scale: float | Tensor) -> Tensor:
        """See `Divergence`."""
        share_NV = (student.log_NV - target.log_NV).mul_(student.probs)
        values_N = share_NV.sum(-1)
        if into_NV is not None:
            share_NV.addcmul_(student.probs, values_N[:, None], value=-1)
            add_scaled(into_NV, share_NV, scale)
        return values_N
