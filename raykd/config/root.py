"""The whole config of a run: distillation of a Whisper, or training of a masked language model."""

import re

from pydantic import Field, field_validator, model_validator

from raykd.config.base import Section, wrong
from raykd.config.data import DataConfig
from raykd.config.mlm import MlmConfig
from raykd.config.models import StudentConfig, TeacherConfig
from raykd.config.objective import KdRecipe, ObjectiveConfig, needs_teacher
from raykd.config.text import TextConfig
from raykd.config.training import ClusterConfig, EvaluationConfig, TrackingConfig, TrainConfig


class RunConfig(Section):
    """What every training run has."""

    name: str
    """Name of the run and of its folder."""
    output_dir: str = "runs"
    """Local folder or any pyarrow filesystem (s3://, gs://); shared storage when the run has several nodes."""
    seed: int = Field(0, ge=0)
    train: TrainConfig
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"must be letters, digits, `.`, `_` and `-`, with a letter or digit first (got {name!r})")
        return name


class Config(RunConfig):
    """A distillation: data, teacher, student, objective and how it is trained."""

    name: str = "distil"
    """Name of the run and of its folder."""
    data: DataConfig
    teacher: TeacherConfig | None = None
    student: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = KdRecipe(recipe="kd")
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> "Config":
        if self.teacher is None and self.student.init == "teacher":
            raise wrong("required, because student.init is `teacher`; give teacher.model, or student.init: scratch", "teacher")
        if self.teacher is None and needs_teacher(self.objective):
            raise wrong("required by the objective; give teacher.model, or objective.recipe: ce", "teacher")
        return self


class MlmRunConfig(RunConfig):
    """The training of a masked language model on text."""

    name: str = "mlm"
    """Name of the run and of its folder."""
    text: TextConfig
    mlm: MlmConfig = MlmConfig()
