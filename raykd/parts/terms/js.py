"""Jensen-Shannon divergence, also a skewed one. Shapes: N tokens, V vocabulary."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.parts.terms.term import Divergence, LogProbs, add_scaled


class Js(Divergence):
    """mix KL(q || m) + (1 - mix) KL(p || m) with m = mix q + (1 - mix) p, q the target and p the student.

    At mix 0.5 the usual Jensen-Shannon divergence. Gradient: p (g - sum p g), with g = (1 - mix) (log p - log m). The mixture
    is taken on logarithms, so that a token that has underflowed on both sides gives 0 and not NaN.
    """

    kind: Literal["js"] = "js"
    mix: float = Field(0.5, gt=0, lt=1)
    """Weight of the target in the mixture."""

    def between(self, student: LogProbs, target: LogProbs, into_NV: Tensor | None, scale: float | Tensor) -> Tensor:
        """See `Divergence`."""
        log_m_NV = torch.logaddexp(target.log_NV + math.log(self.mix), student.log_NV + math.log(1 - self.mix))
        target_N = (target.log_NV - log_m_NV).mul_(target.probs).sum(-1)
        share_NV = torch.sub(student.log_NV, log_m_NV, out=log_m_NV).mul_(student.probs)
        student_N = share_NV.sum(-1)
        if into_NV is not None:
            share_NV.addcmul_(student.probs, student_N[:, None], value=-1)
            add_scaled(into_NV, share_NV, scale * (1 - self.mix))
        return self.mix * target_N + (1 - self.mix) * student_N
