"""A folder mounted on every node is named by a file:// URI, which transformers does not take."""

from pathlib import Path

from raykd.data.text import LabelEncoder
from raykd.models.whisper import load_whisper, speech_format


def test_models_and_tokenizers_are_read_from_file_uris(tiny_whisper_dir: Path) -> None:
    uri = tiny_whisper_dir.as_uri()
    assert load_whisper(uri).config.d_model == 32
    assert LabelEncoder(speech_format(uri).tokenizer).encode("ano", "cs") == LabelEncoder(str(tiny_whisper_dir)).encode(
        "ano", "cs"
    )
