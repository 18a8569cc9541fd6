"""What a Whisper model wants of its input."""

from dataclasses import dataclass

SAMPLE_RATE = 16_000
"""Samples a second of all audio after decoding."""
FRAMES_PER_S = 100
"""Mel frames a second."""


@dataclass(frozen=True)
class SpeechFormat:
    """Shape of a model's input and the tokenizer of its labels."""

    n_mels: int
    """80, or 128 for large-v3."""
    window_frames: int
    """Frames the encoder takes: 3000 (30 s) for real Whisper, fewer for demo models."""
    max_label_tokens: int
    """Positions of the decoder."""
    tokenizer: str
    """Local folder or hub id that holds Whisper tokenizer files."""
    tokenizer_revision: str | None = None

    @property
    def window_s(self) -> float:
        """Longest utterance in seconds."""
        return self.window_frames / FRAMES_PER_S
