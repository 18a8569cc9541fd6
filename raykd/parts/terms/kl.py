"""Forward Kullback-Leibler divergence. Shapes: N tokens, V vocabulary."""

from typing import Literal

from torch import Tensor

from raykd.parts.terms.term import Divergence, LogProbs, add_scaled


class Kl(Divergence):
    """KL(q || p) = sum q (log q - log p), with q the target and p the student. Gradient: p - q."""

    kind: Literal["kl"] = "kl"

    def between(self, student: LogProbs, target: LogProbs, into_NV: Tensor | None, scale: float | Tensor) -> Tensor:
        """See `Divergence`."""
        values_N = (target.log_NV - student.log_NV).mul_(target.probs).sum(-1)
        if into_NV is not None:
            add_scaled(into_NV, student.probs, scale)
            add_scaled(into_NV, target.probs, -scale)
        return values_N
