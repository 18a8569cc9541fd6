"""Training of a student Whisper on speech."""

from dataclasses import dataclass

import torch
from torch import nn

from raykd.config.root import Config
from raykd.data.format import SpeechFormat
from raykd.data.order import EpochOrder
from raykd.data.stream import Reading, speech_reading
from raykd.data.text import LabelEncoder
from raykd.data.token_map import TokenMap
from raykd.errors import UserError
from raykd.models.precision import compute_dtype
from raykd.models.whisper import load_whisper
from raykd.parts.recipes.recipe import Method
from raykd.parts.students.learner import WhisperLearner
from raykd.training.dev_loss import DevLoss
from raykd.training.worker import TrainingJob


@dataclass(frozen=True, kw_only=True)
class StudentJob(TrainingJob):
    """Distillation, or fine-tuning where nothing teaches."""

    config: Config
    """Models that raykd trains first are named by their folders."""
    speech_format: SpeechFormat
    student: str
    """Folder of the student as it was before training."""
    encoder_shared: bool = False
    """Whether the student's frozen encoder is the teacher's: it runs once for both, in the teacher's type."""

    @property
    def unit(self) -> str:
        """Rows are utterances."""
        return "utterances"

    @property
    def method(self) -> Method:
        """The config's."""
        return self.config.method

    def order(self) -> EpochOrder:
        """Utterances of the train split, in the config's mix of languages."""
        config = self.config
        index = self.corpus.index("train")
        wanted = config.data.by_length
        by_length = wanted if wanted is not None else config.student.window != "whole"
        lengths = index.n_frames if by_length else None
        return EpochOrder(index, config.seed, config.train.batch_size, config.data.mix, lengths=lengths)

    def reading(self, order: EpochOrder, rank: int, world: int, accumulation: int) -> Reading:
        """Utterances to mel and labels."""
        inputs = [one for one in self.method.inputs if one.changes_rows]
        shared = [one.change_row for one in inputs if one.reaches_targets()]
        own = [one.change_row for one in inputs if not one.reaches_targets()]
        readers = [reader for target in self.method.targets.values() if (reader := target.reader()) is not None]
        if len(readers) > 1:
            raise UserError("objective.targets: only one target of a run can be cached")
        seed, reader = self.config.seed, readers[0] if readers else None
        wanted, tokens = self.speech_format, TokenMap.of(self.speech_format, self.kept_tokens)
        return speech_reading(self.corpus, "train", order, rank, world, accumulation, wanted, seed, shared, own, reader, tokens)

    def load_model(self) -> nn.Module:
        """The student as it was before training."""
        student = load_whisper(self.student)
        self.config.student.freeze(student)
        return student

    def learner(self, model: nn.Module) -> WhisperLearner:
        """As the student's kind makes it."""
        return self.config.student.learner(model)  # type: ignore[arg-type]

    def labels(self) -> LabelEncoder:
        """The student's vocabulary."""
        return LabelEncoder(self.student)

    def dev_loss(self, rank: int, world: int, device: torch.device) -> DevLoss:
        """On the corpus's dev split."""
        batch_size = self.config.train.micro_batch_size or self.config.train.batch_size
        tokens = TokenMap.of(self.speech_format, self.kept_tokens)
        return DevLoss(self.corpus, tokens, batch_size, rank, world, device)

    def frozen_dtype(self, device: torch.device) -> torch.dtype:
        """Of the student's frozen encoder."""
        teacher = self.config.teacher
        return compute_dtype(teacher.dtype if teacher and self.encoder_shared else self.config.train.precision, device)
