"""Training of a student Whisper on speech: what the workers build for it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raykd.config.objective import mlm_of
from raykd.config.root import Config
from raykd.data.format import SpeechFormat
from raykd.data.order import EpochOrder
from raykd.data.stream import Reading, speech_reading
from raykd.models.precision import compute_dtype
from raykd.models.student import freeze, shares_encoder
from raykd.models.whisper import load_whisper
from raykd.objectives.recipes import terms_of
from raykd.training.engine import Engine
from raykd.training.loop import Trainer
from raykd.training.mlm_teacher import MlmTeacher, load_mlm_teacher
from raykd.training.step import FrozenEncoder, StudentForward, StudentStep, Teacher
from raykd.training.worker import TrainingJob


@dataclass(frozen=True)
class StudentJob(TrainingJob):
    """Distillation, or fine-tuning where nothing teaches."""

    config: Config
    speech_format: SpeechFormat
    student: str
    """Folder of the student as it was before training."""
    teacher: str | None
    mlm: str | None = None
    """Folder of the masked language model that teaches."""

    def order(self) -> EpochOrder:
        """Utterances of the train split, in the config's mix of languages."""
        config = self.config
        return EpochOrder(self.corpus.index("train"), config.seed, config.train.batch_size, config.data.mix)

    def reading(self, order: EpochOrder, rank: int, world: int, accumulation: int) -> Reading:
        """Utterances to mel and labels."""
        augment, seed = self.config.data.spec_augment, self.config.seed
        return speech_reading(self.corpus, "train", order, rank, world, accumulation, self.speech_format, augment, seed)

    def load_model(self) -> nn.Module:
        """The student as it was before training."""
        student = load_whisper(self.student)
        freeze(student, self.config.student)
        if self.config.student.gradient_checkpointing:
            student.gradient_checkpointing_enable({"use_reentrant": False})
        return student

    def build_trainer(self, model: nn.Module, device: torch.device, world: int, accumulation: int) -> Trainer:
        """Student, teachers and a frozen encoder on the device."""
        config = self.config
        student: Any = model
        mixed = compute_dtype(config.train.precision, device)
        teacher, shared = None, False
        if self.teacher is not None and config.teacher is not None:
            teacher_dtype = compute_dtype(config.teacher.dtype, device)
            teacher_model = load_whisper(self.teacher, teacher_dtype, config.teacher.revision)
            shared = shares_encoder(config.student, teacher_model, student)
            teacher = Teacher(teacher_model, device, config.teacher.sharded)
        module = StudentStep(student)
        frozen_encoder = None
        if module.encoder is None:
            student.model.encoder.to(device)
            frozen_encoder = FrozenEncoder(student, teacher, shared, mixed)
        engine = Engine(module.to(device), config.train, accumulation, world)
        autocast = mixed if mixed != torch.float32 else None
        return Trainer(
            config=config.train,
            terms=terms_of(config.objective),
            engine=engine,
            forward=StudentForward(engine, frozen_encoder, teacher, self._mlm_teacher(device), autocast),
            unit="utterances",
            world=world,
        )

    def _mlm_teacher(self, device: torch.device) -> MlmTeacher | None:
        config = mlm_of(self.config.objective)
        if self.mlm is None or config is None:
            return None
        return load_mlm_teacher(self.mlm, config, device)
