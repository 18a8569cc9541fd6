"""Where the text of a masked language model comes from and how it is cut."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raykd.config.base import Mark, Section
from raykd.config.shorthand import ONE_OR_MORE, SourcePath, source_shorthand


class TextFilesSource(Section):
    """Plain text, one text a line; files are read as streams and never unpacked to disk."""

    kind: Literal["files"] = "files"
    path: SourcePath
    """File, folder or glob of `.txt`, `.txt.gz` or `.txt.xz`; local or any pyarrow filesystem (s3://, gs://)."""


class TextParquetSource(Section):
    """A text column of Parquet files."""

    kind: Literal["parquet"] = "parquet"
    path: SourcePath
    """File, folder or glob; local or any pyarrow filesystem."""
    column: str = "text"
    """Each line of a value is a text."""


class TextHuggingFaceSource(Section):
    """A text column of a Hugging Face dataset, streamed."""

    kind: Literal["huggingface"] = "huggingface"
    path: Annotated[str, Mark.PATH_IF_THERE]
    """Hub name such as `statmt/cc100`, or a local folder (a dataset repository or `save_to_disk`)."""
    name: str | None = None
    """Configuration of the dataset, such as `cs`."""
    revision: str | None = None
    """Of the hub name."""
    split: str = "train"
    """Split of the dataset that is read."""
    column: str = "text"
    """Each line of a value is a text."""


class TextDemoSource(Section):
    """Sentences of the grammars that demo speech is made of, in the language of the text section; no word is held out."""

    kind: Literal["demo"] = "demo"
    kinds: tuple[str, ...] = ()
    """Sentence kinds of the grammars; empty: all that demo speech is trained on."""
    sentences: int = Field(20_000, ge=1)
    """Distinct sentences, or all there are."""
    seed: int = 0
    """Of the sentences."""


class AutoTextSource(Section):
    """A folder whose kind is told by what lies in it, when it is listed for the first time."""

    kind: Literal["auto"] = "auto"
    path: SourcePath
    """Folder, local or on any pyarrow filesystem (s3://, gs://); a file or glob that no suffix tells is plain text."""
    name: str | None = None
    """As the kind has it, which must know the key."""
    revision: str | None = None
    """Likewise."""
    split: str | None = None
    """Likewise."""
    column: str | None = None
    """Likewise."""


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _bytes(value: Any) -> Any:
    """`210MB` or `1.5 GB` as a number of bytes; units are decimal."""
    if not isinstance(value, str):
        return value
    written = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?B?)\s*", value, re.IGNORECASE)
    unit = written[2].upper() if written else None
    if written is None or unit not in _UNITS:
        raise ValueError(f"must be a number of bytes such as 210MB or 1.5GB (got {value})")
    return round(float(written[1]) * _UNITS[unit])


def _kind_of(path: str) -> str:
    suffix = PurePosixPath(path.partition("?")[0]).suffix.lower()
    if suffix == ".parquet":
        return "parquet"
    return "files" if suffix in {".txt", ".gz", ".xz"} else "auto"


TextSource = Annotated[
    TextFilesSource | TextParquetSource | TextHuggingFaceSource | TextDemoSource | AutoTextSource,
    Field(discriminator="kind"),
    source_shorthand(_kind_of),
]


class TextConfig(Section):
    """Text, and how it is cut into segments. The defaults are those of the published Czech masked language model."""

    source: Annotated[tuple[TextSource, ...], ONE_OR_MORE] = Field(min_length=1)
    """One source or a list, read in this order. A string is a shorthand: `demo`, a file, a glob, a folder, `hf:NAME`."""
    language: str
    """Language of the text (Whisper's code, such as `cs`)."""
    max_bytes: Annotated[int | None, BeforeValidator(_bytes)] = Field(None, ge=1)
    """Read until the kept lines have so many UTF-8 bytes (`210MB`, `1.5GB`; decimal); the rest is not read. None: all."""
    words_per_segment: int | None = Field(15, ge=1)
    """Lines are joined and cut into segments of so many words; None: each line is a segment."""
    min_words: int = Field(5, ge=1)
    """Lines with fewer words that hold a letter are dropped; the words left over at the end are too if they are fewer."""
    max_characters: int = Field(512, ge=1)
    """Segments are cut to so many characters."""
    deduplicate: bool = True
    """Use a line only the first time it comes."""
    validation_share: float = Field(0.05, ge=0, lt=0.5)
    """Share of the segments kept as `dev`, by hash of the segment; at least one. 0: none."""
    max_validation_segments: int = Field(2000, ge=1)
    """Dev is cut to this many segments; the others are trained on."""
    max_reject_share: Annotated[float, Mark.FREE] = Field(0.05, ge=0, le=1)
    """Stop when a larger share of the lines cannot be read as text."""
    cache_dir: Annotated[str, Mark.PATH, Mark.FREE] = "cache"
    """Prepared corpora are kept here, keyed by content; local or any pyarrow filesystem."""
    shard_segments: Annotated[int, Mark.FREE] = Field(8192, ge=1)
    """Segments in one prepared shard."""
