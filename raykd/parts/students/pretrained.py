"""A student that is a Whisper already."""

from typing import TYPE_CHECKING, Annotated, Literal

from raykd.config.base import Mark
from raykd.parts.students.student import Student

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor


class Pretrained(Student):
    """A Whisper from a hub id or folder: `{init: openai/whisper-small}` for short."""

    kind: Literal["pretrained"] = "pretrained"
    model: Annotated[str, Mark.WHISPER]
    """Hub id, folder, or a raykd config that makes it first; of the teacher's vocabulary, mel channels and window where there
    is a teacher."""
    revision: str | None = None
    """Of the hub id."""

    @property
    def origin(self) -> str:
        """The model."""
        return self.model

    def make(self, teacher: "WhisperForConditionalGeneration | None", seed: int) -> "WhisperForConditionalGeneration":
        """See `Student`."""
        from raykd.models.whisper import drop_forced_ids, load_whisper

        student = load_whisper(self.model, revision=self.revision)
        drop_forced_ids(student)
        return student

    def processor(self, teacher: str | None, revision: str | None) -> "WhisperProcessor":
        """The model's own."""
        from raykd.models.whisper import load_processor

        return load_processor(self.model, self.revision)

    def dimensions(self, teacher: "WhisperConfig | None") -> "WhisperConfig | None":
        """Those of the model's config; None for a remote folder, which is fetched as a whole later."""
        from raykd.models.whisper import config_if_here

        return config_if_here(self.model, self.revision)
