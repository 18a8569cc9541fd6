"""What a part finds on a training worker when it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from raykd.data.text import LabelEncoder
    from raykd.parts.students.learner import Learner


@dataclass
class Worker:
    """One training worker, before its engine is built."""

    device: torch.device
    student: "Learner"
    """The student before the first step, still on the CPU; `student.current` is what it will be at any step."""
    labels: "LabelEncoder"
    """The student's vocabulary."""
    dev_loss: Callable[[Any], float]
    """Mean cross-entropy of a learner with whole weights on some dev utterances. Collective: every worker calls it."""
    rank: int = 0
    world: int = 1
    seed: int = 0
    autocast: torch.dtype | None = None
    """Type that what trains computes in, by autocast; None: its own."""
    compile_or_tell: Callable[[str], None] | None = None
    """What is frozen is compiled, and this is told why where it cannot be; None: nothing is compiled."""

    @property
    def kept_tokens(self) -> tuple[int, ...] | None:
        """Of each of the student's tokens, its id in the whole vocabulary, to which models that teach are cut; None: it has
        all."""
        from raykd.models.pruning import kept_tokens

        config = getattr(self.student, "config", None)
        return None if config is None else kept_tokens(config)
