"""A program that runs an exported student, as the gate sees it."""

from dataclasses import dataclass
from typing import Literal, Protocol

from raykd.exporting.clips import Clip

Window = Literal["whole", "clip"]


class Transcriber(Protocol):
    """A loaded model."""

    def __call__(self, clip: Clip, window: Window) -> str:
        """Its greedy transcript, without timestamps."""
        ...


@dataclass(frozen=True)
class Runtime:
    """A program with an exported model loaded."""

    name: str
    transcribe: Transcriber
    windows: tuple[Window, ...]
    """Those that it can give the encoder."""
    tolerance: float = 0.0
    """Share of words that may differ from the student's in PyTorch: more than none where the program makes its own features, or
    rounds the weights."""
    computes_in: str | None = None
    """Type that it computes in on this machine; None: it does not say."""
