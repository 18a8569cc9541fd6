"""Training of a masked language model on text: what the workers build for it.

Shapes: B segments, T positions, N masked positions, D width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raykd.config.root import MlmRunConfig
from raykd.data.batches import TextBatch
from raykd.data.masking import masked_counts
from raykd.data.order import EpochOrder
from raykd.data.stream import Reading, text_reading
from raykd.data.text import LabelEncoder
from raykd.models.masked_lm import MaskedLm, load_masked_lm
from raykd.parts.clock import Clock
from raykd.parts.recipes.ce import CeRecipe
from raykd.parts.recipes.recipe import Method, named
from raykd.parts.students.learner import Learner
from raykd.training.worker import TrainingJob


class MlmLearner(Learner):
    """The masked language model as the engine takes it."""

    def __init__(self, model: MaskedLm) -> None:
        super().__init__()
        self.model = model
        self.head_VD = model.embedding.weight

    def forward(
        self, batch: TextBatch, wanted: frozenset[str] = frozenset(), clock: Clock | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """hidden_ND at the masked positions."""
        with torch.autocast("cpu", enabled=False):  # many CPUs have no LSTM in bfloat16 and PyTorch fails there
            states_BTD = self.model(self.model.masked(batch.tokens_BT, batch.masked_BT), batch.lengths_B)
        return states_BTD[batch.masked_BT], {}


@dataclass(frozen=True, kw_only=True)
class MlmJob(TrainingJob):
    """Cross-entropy on masked tokens."""

    config: MlmRunConfig
    model: str
    """Folder of the model as it was before training."""

    @property
    def unit(self) -> str:
        """Rows are segments of text."""
        return "segments"

    @property
    def method(self) -> Method:
        """Cross-entropy."""
        return Method(terms=named(CeRecipe().method().terms))

    def order(self) -> EpochOrder:
        """Segments of the train split; only masked positions have a loss."""
        index = self.corpus.index("train")
        masked = masked_counts(index.n_tokens, self.config.mlm.mask_share)
        return EpochOrder(index, self.config.seed, self.config.train.batch_size, loss_tokens=masked)

    def reading(self, order: EpochOrder, rank: int, world: int, accumulation: int) -> Reading:
        """Segments to tokens and masks."""
        mask_share, seed = self.config.mlm.mask_share, self.config.seed
        return text_reading(self.corpus, "train", order, rank, world, accumulation, mask_share, seed)

    def load_model(self) -> MaskedLm:
        """The model as it was before training."""
        return load_masked_lm(self.model)

    def learner(self, model: nn.Module) -> MlmLearner:
        """The model with the same objective head as a student's."""
        assert isinstance(model, MaskedLm)
        return MlmLearner(model)

    def dev_loss(self, rank: int, world: int, device: torch.device) -> Callable[[Any], float]:
        """No part of its method asks for one."""

        def never_asked_for(learner: Any) -> float:
            raise AssertionError("a masked language model has no part that asks for its dev loss")

        return never_asked_for

    def labels(self) -> LabelEncoder:
        """The model's own vocabulary."""
        return LabelEncoder(self.model)
