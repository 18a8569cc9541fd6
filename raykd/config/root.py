"""The whole config of a run: distillation of a Whisper, or training of a masked language model."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from raykd.config.base import FolderName, Mark, Section, wrong
from raykd.config.data import DataConfig
from raykd.config.label import CacheConfig, LabelConfig
from raykd.config.mistakes import mistakes
from raykd.config.mlm import MlmConfig
from raykd.config.text import TextConfig
from raykd.config.training import ClusterConfig, EvaluationConfig, TrackingConfig, TrainConfig
from raykd.errors import UserError
from raykd.parts.inputs.input import Input
from raykd.parts.inputs.spec_augment import SpecAugment
from raykd.parts.recipes.kd import KdRecipe
from raykd.parts.recipes.recipe import Method, Recipe, named
from raykd.parts.rooms import ROOMS  # noqa: F401 (fills the rooms)
from raykd.parts.students.layer_copy import LayerCopy
from raykd.parts.students.student import Student
from raykd.parts.targets.cached import CachedTarget
from raykd.parts.targets.target import TEACHER
from raykd.parts.targets.whisper import WhisperTarget
from raykd.parts.terms.term import STUDENT


def _elsewhere(found: list[tuple[str, str]], *keys: str) -> ValidationError:
    """Mistakes in a section that the user wrote at other keys than it is read from."""
    details = []
    for path, message in found:
        kind = PydanticCustomError("wrong", "{message}", {"message": message})
        details.append(InitErrorDetails(type=kind, loc=(*keys, path) if path else keys, input=None))
    return ValidationError.from_exception_data("config", details)


def _is_a_whisper(value: Any) -> Any:
    return {"kind": "whisper", **value} if isinstance(value, dict) else value


Teacher = Annotated[WhisperTarget | CachedTarget, Field(discriminator="kind"), BeforeValidator(_is_a_whisper)]
"""A teacher is loaded, unless `kind: cached` says that its answers were kept."""


class RunConfig(Section):
    """What every training run has."""

    name: FolderName
    """Name of the run and of its folder."""
    output_dir: Annotated[str, Mark.PATH, Mark.FREE] = "runs"
    """Local folder or any pyarrow filesystem (s3://, gs://); shared storage when the run has several nodes."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the order of the data, new weights and everything else that is drawn at random."""
    train: TrainConfig
    tracking: Annotated[TrackingConfig, Mark.FREE] = TrackingConfig()
    cluster: Annotated[ClusterConfig, Mark.FREE] = ClusterConfig()


class Config(RunConfig):
    """A distillation: data, teacher, student, objective and how it is trained."""

    name: FolderName = "distil"
    """Name of the run and of its folder."""
    parts: Annotated[tuple[str, ...], Mark.PARTS_FILES, Mark.FREE] = ()
    """Files with parts of your own (`.py`, local); `--parts FILE` adds one. A resumed run must have the same text."""
    data: DataConfig
    teacher: Teacher | None = None
    """A Whisper that teaches; None: the objective needs none, and the student is not made from it."""
    student: Student = LayerCopy()
    """The model that learns, and what of it trains."""
    objective: Recipe = KdRecipe()
    """What the student is taught by: a method under its paper's name, or terms written out."""
    inputs: tuple[Input, ...] = ()
    """What is done to the speech that student and teacher hear, in turn; a recipe may add its own."""
    evaluation: Annotated[EvaluationConfig, Mark.FREE] = EvaluationConfig()
    label: Annotated[LabelConfig, Mark.FREE] = LabelConfig()
    """How `python -m raykd.label` has the teacher transcribe the data."""
    cache: Annotated[CacheConfig, Mark.FREE] = CacheConfig()
    """What `python -m raykd.label --cache` keeps of the teacher's answers."""

    @model_validator(mode="before")
    @classmethod
    def _spec_augment_is_an_input(cls, value: Any) -> Any:
        """`data.spec_augment: {...}` is short for the input."""
        data = value.get("data") if isinstance(value, dict) else None
        if not isinstance(data, dict) or "spec_augment" not in data:
            return value
        data = dict(data)
        section = data.pop("spec_augment")
        inputs = value.get("inputs") or ()
        if section is not None:
            try:
                inputs = (*inputs, SpecAugment.model_validate(section))
            except ValidationError as error:
                raise _elsewhere(mistakes(error, SpecAugment, section), "data", "spec_augment") from None
        return {**value, "data": data, "inputs": inputs}

    @model_validator(mode="after")
    def _targets_are_there(self) -> "Config":
        if self.teacher is None and self.student.from_teacher:
            raise wrong(
                f"required, because student.kind is `{self.student.kind}`; give teacher.model, or student.init: scratch",
                "teacher",
            )
        try:
            method = self.method
        except UserError as error:
            raise ValueError(str(error)) from None
        if STUDENT in method.targets:
            raise wrong(f"no target can be named {STUDENT}, which stands for the student; give it another name", "objective")
        try:
            method.needed(method.terms)
        except KeyError as error:
            name = error.args[0]
            if name == TEACHER:
                raise wrong("required by the objective; give teacher.model, or objective.recipe: ce", TEACHER) from None
            known = ", ".join(method.targets) or "none"
            raise wrong(f"no target is named {name!r}; give it in objective.targets (known: {known})", "objective") from None
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def method(self) -> Method:
        """All parts of the objective, its terms named, with the teacher among its targets and all inputs."""
        made = self.objective.method()
        teacher = {TEACHER: self.objective.taught_by(self.teacher)} if self.teacher else {}
        targets = {**teacher, **made.targets}
        inputs = (*self.inputs, *made.inputs, *self.student.inputs)
        return Method(named(made.terms), targets, made.context, inputs, made.updates)


class MlmRunConfig(RunConfig):
    """The training of a masked language model on text."""

    name: FolderName = "mlm"
    """Name of the run and of its folder."""
    text: TextConfig
    mlm: MlmConfig = MlmConfig()
