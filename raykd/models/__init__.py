"""Teachers and students: loading, building, freezing, counting and hashing Whisper models."""
