"""Cross-entropy on the labels. Shapes: N tokens, V vocabulary."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from raykd.data.batches import Contexts
from raykd.parts.terms.term import Chunk, ClosedForm, add_scaled


class Ce(ClosedForm):
    """-(1 - e) log p[label] - e/V sum_v log p[v], with e the label smoothing, as in PyTorch. Gradient: p - target."""

    kind: Literal["ce"] = "ce"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Mass spread evenly over the vocabulary."""
    contexts: Contexts = "gold"
    """Utterances that count: what the student itself has said has no labels."""

    def values_and_gradient(self, at: Chunk, into_NV: Tensor | None, scale: float | Tensor) -> Tensor:
        """See `ClosedForm`."""
        student, label_N1 = at.student(self.student_temperature), at.labels_N[:, None]
        log_NV = student.log_NV
        even = self.label_smoothing / log_NV.shape[-1]
        values_N = -(1 - self.label_smoothing) * log_NV.gather(1, label_N1).squeeze(1)
        if even:
            values_N -= even * log_NV.sum(-1)
        if into_NV is not None:
            add_scaled(into_NV, student.probs, scale)
            if even:
                into_NV.sub_(scale * even)
            at_label_N1 = log_NV.new_full(label_N1.shape, -(1 - self.label_smoothing)) * scale
            into_NV.scatter_add_(1, label_N1, at_label_N1)
        return values_N
