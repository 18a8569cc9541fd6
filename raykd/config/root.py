"""The whole config of a run."""

from pydantic import Field, model_validator

from raykd.config.base import Section
from raykd.config.data import DataConfig
from raykd.config.models import StudentConfig, TeacherConfig
from raykd.config.objective import CeRecipe, KdRecipe, ObjectiveConfig
from raykd.config.training import ClusterConfig, EvaluationConfig, TrackingConfig, TrainConfig


class Config(Section):
    """One run: data, teacher, student, objective and how it is trained."""

    name: str = Field("distil", pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the run and of its folder."""
    output_dir: str = "runs"
    """Local folder or any pyarrow filesystem (s3://, gs://); shared storage when the run has several nodes."""
    seed: int = Field(0, ge=0)
    data: DataConfig
    teacher: TeacherConfig | None = None
    student: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = KdRecipe(recipe="kd")
    train: TrainConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> "Config":
        if self.teacher is None and self.student.init == "teacher":
            raise ValueError("student.init is `teacher` but there is no teacher section")
        if self.teacher is None and not isinstance(self.objective, CeRecipe):
            raise ValueError("the objective needs a teacher; give a teacher section, or objective.recipe: ce")
        return self
