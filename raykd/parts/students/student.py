"""Students: the model that learns, and what of it trains."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from raykd.config.base import Mark
from raykd.parts.inputs.clip_window import ClipWindow
from raykd.parts.inputs.input import Input
from raykd.parts.part import Part, Room
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.students.vocabulary import FromCorpus

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

STUDENTS_ROOM = Room("students")


def _is_a_window(value: Any) -> Any:
    if value == "clip":
        return ClipWindow()
    return {"kind": "clip_window", **value} if isinstance(value, dict) else value


def _is_a_vocabulary(value: Any) -> Any:
    return FromCorpus() if value == "from_corpus" else value


class Student(Part):
    """How the student is made, what of it trains, and what it gives to terms."""

    room: ClassVar = STUDENTS_ROOM
    from_teacher: ClassVar[bool] = False
    """Whether it is made from the teacher, so that there has to be one."""

    kind: str
    freeze_encoder: bool = True
    """Keep the encoder as it is; a complete frozen encoder is shared with the teacher's and runs once."""
    window: Annotated[Literal["whole"] | ClipWindow, BeforeValidator(_is_a_window)] = "whole"
    """What its encoder hears: the model's whole window (30 s), or `clip`, the clip and a margin (`inputs: clip_window`), which
    is several times less work where clips are short."""
    vocabulary: Annotated[Literal["whole"] | FromCorpus, BeforeValidator(_is_a_vocabulary)] = "whole"
    """Tokens that it has: those of the model it is made from, or only what the data needs (`from_corpus`)."""
    gradient_checkpointing: Annotated[bool, Mark.FREE] = False
    """Compute the student's layers again in the backward pass: less memory, more computing."""

    @property
    @abstractmethod
    def origin(self) -> str:
        """What it starts from, in a word or a model's name, for the banner."""

    def started_from(self) -> str:
        """The same in words, for the model card."""
        return self.origin

    @abstractmethod
    def make(self, teacher: "WhisperForConditionalGeneration | None", seed: int) -> "WhisperForConditionalGeneration":
        """The whole model before training: float32, on the CPU, in eval mode, with a generation config that fits it.

        Raises:
            UserError: a layer that the teacher does not have, or a model that cannot be loaded.
        """

    def made(self, teacher: "WhisperForConditionalGeneration | None", seed: int) -> "WhisperForConditionalGeneration":
        """`make`, with the window that it will be trained for in its config.

        Raises:
            UserError: as `make`.
        """
        from raykd.models.window import CLIP_MARGIN

        model = self.make(teacher, seed)
        if self.window != "whole":
            setattr(model.config, CLIP_MARGIN, self.window.margin)
        return model

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What is done to the speech that it hears."""
        return () if self.window == "whole" else (self.window,)

    @abstractmethod
    def processor(self, teacher: str | None, revision: str | None) -> "WhisperProcessor":
        """Tokenizer and feature extractor. `teacher`: its hub id or folder.

        Raises:
            UserError: they cannot be read.
        """

    @abstractmethod
    def dimensions(self, teacher: "WhisperConfig | None") -> "WhisperConfig | None":
        """Of the model that will be made; None when they are not known on this machine.

        Raises:
            UserError: a layer that the teacher does not have, or a model that is not there.
        """

    def freeze(self, model: "WhisperForConditionalGeneration") -> None:
        """Set `requires_grad` of every parameter. The encoder's sinusoidal positions never train."""
        model.requires_grad_(True)
        model.model.encoder.requires_grad_(not self.freeze_encoder)
        model.model.encoder.embed_positions.requires_grad_(False)

    def finished(self, model: "WhisperForConditionalGeneration") -> "WhisperForConditionalGeneration":
        """The student as it is given away, from the one that was trained."""
        return model

    def learner(self, model: "WhisperForConditionalGeneration") -> WhisperLearner:
        """The model, frozen as `freeze` says, as what the training engine takes."""
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return WhisperLearner(model)

    @classmethod
    def written_out(cls, section: dict[str, Any]) -> dict[str, Any]:
        """`init: teacher`, `init: scratch` and `init: PATH` are short for a kind; no kind at all is a copy of layers."""
        if "kind" in section:
            return section
        init = section.pop("init", "teacher")
        if init == "teacher":
            return {"kind": "layer_copy", **section}
        if init == "scratch":
            sizes = section.pop("scratch", None) or {}
            return {"kind": "scratch", **section, **sizes} if isinstance(sizes, dict) else {"kind": "scratch", "scratch": sizes}
        return {"kind": "pretrained", "model": init, **section}
