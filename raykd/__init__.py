"""raykd: distil large Whisper teachers into small, fast students, on one laptop or on a Ray cluster."""

__version__ = "0.1.0"
