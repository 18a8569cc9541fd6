"""Training of a masked language model on text: what the workers build for it."""

from dataclasses import dataclass

import torch
from torch import nn

from raykd.config.objective import CeRecipe
from raykd.config.root import MlmRunConfig
from raykd.data.masking import masked_counts
from raykd.data.order import EpochOrder
from raykd.data.stream import Reading, text_reading
from raykd.models.masked_lm import MaskedLm, load_masked_lm
from raykd.models.precision import compute_dtype
from raykd.objectives.recipes import terms_of
from raykd.training.engine import Engine
from raykd.training.loop import Trainer
from raykd.training.step import MlmForward, MlmStep
from raykd.training.worker import TrainingJob


@dataclass(frozen=True)
class MlmJob(TrainingJob):
    """Cross-entropy on masked tokens."""

    config: MlmRunConfig
    model: str
    """Folder of the model as it was before training."""

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

    def build_trainer(self, model: nn.Module, device: torch.device, world: int, accumulation: int) -> Trainer:
        """The model on the device, with the same objective head as a student's."""
        mixed = compute_dtype(self.config.train.precision, device)
        assert isinstance(model, MaskedLm)
        engine = Engine(MlmStep(model).to(device), self.config.train, accumulation, world)
        return Trainer(
            config=self.config.train,
            terms=terms_of(CeRecipe(recipe="ce")),
            engine=engine,
            forward=MlmForward(engine, mixed if mixed != torch.float32 else None),
            unit="segments",
            world=world,
        )
