"""What a part finds on a training worker when it is built."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    rank: int = 0
    world: int = 1
    seed: int = 0
