"""Sources: whatever holds recordings and transcripts, read as one stream of utterance rows (`raykd.data.utterances`).

Each kind lists its parts on the driver (`source_parts`, cheap: names and offsets) and reads them wherever Ray puts the task.
A row that cannot be used is passed on with its `problem`; only a source that cannot be used at all is a `UserError`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raykd.config.data import (
    AudioFolderSource,
    CommonVoiceSource,
    DataConfig,
    DemoSource,
    HuggingFaceSource,
    KaldiSource,
    LabelsSource,
    ManifestSource,
    Source,
    WebDatasetSource,
)
from raykd.data.files import child, read_error
from raykd.data.languages import configured_language
from raykd.data.sources.audio_folder import audio_folder_parts
from raykd.data.sources.common_voice import common_voice_parts
from raykd.data.sources.huggingface import huggingface_parts, without_default_split
from raykd.data.sources.kaldi import kaldi_parts
from raykd.data.sources.manifest import manifest_parts
from raykd.data.sources.part import Part
from raykd.data.sources.recognise import with_speech_kinds
from raykd.data.sources.webdataset import webdataset_parts
from raykd.data.split_names import OWN_SPLITS, UNCLEAR_SPLIT, split_name, splits_beside
from raykd.errors import UserError


def all_parts(config: DataConfig, needs_text: bool = True) -> list[Part]:
    """The parts of all sources, in order. Ids of the second and later sources start with `2:`, `3:` and so on.

    `needs_text`: whether a row without a transcript cannot be used.
    """
    config = with_speech_kinds(config)
    prefixes = ["", *(f"{number}:" for number in range(2, len(config.source) + 1))]
    beside = splits_beside([None if isinstance(source, DemoSource | LabelsSource) else source.path for source in config.source])
    return [
        part
        for source, prefix, split in zip(config.source, prefixes, beside, strict=True)
        for part in source_parts(source, config, prefix, needs_text, split)
    ]


def source_parts(
    source: Source, config: DataConfig, prefix: str = "", needs_text: bool = True, split: str | None = None
) -> list[Part]:
    """The parts of a source whose kind is known. Rows without a language have the source's, else that of `data.language`;
    rows whose split nothing else tells have `split`.

    Raises:
        UserError: the source cannot be used.
    """
    try:
        parts = _parts(source, config, prefix, needs_text)
    except OSError as error:  # a bucket that does not answer, a file that went away
        raise read_error("data.source" if isinstance(source, DemoSource) else source.path, error) from None
    if isinstance(source, HuggingFaceSource) and split is not None:
        parts = without_default_split(parts)
    return [NamedSplits(part, (*OWN_SPLITS, *config.test_splits), split) for part in parts]


@dataclass(frozen=True)
class NamedSplits:
    """The rows of a part with our names of their splits; those of `own` keep theirs. `other`: of rows that have none."""

    part: Part
    own: tuple[str, ...]
    other: str | None = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """See `Part`."""
        for row in self.part.rows():
            split = row["split"] or self.other
            named = split_name(split, self.own) if split else None
            unclear = split is not None and named is None
            yield {**row, "split": named, "problem": row["problem"] or (UNCLEAR_SPLIT if unclear else None)}


def _parts(source: Source, config: DataConfig, prefix: str, needs_text: bool) -> list[Part]:
    language = configured_language(config.language, "data.language")
    if isinstance(source, ManifestSource):
        return manifest_parts(source.path, prefix, language, needs_text, source.columns)
    if isinstance(source, LabelsSource):
        return _labelled(source, prefix)
    if isinstance(source, DemoSource):
        from raykd.data.demo import ensure_demo_corpus

        folder = ensure_demo_corpus(source, config.cache_dir)
        return manifest_parts(child(folder, "**/*.parquet"), prefix, language)
    own = configured_language(source.language, "data.source.language")
    if isinstance(source, CommonVoiceSource):
        wanted = {"train": source.train_rows, "dev": source.dev_rows}
        most = {split: rows for split, rows in wanted.items() if rows is not None}
        return common_voice_parts(source.path, prefix, own, language, most)
    if isinstance(source, AudioFolderSource):
        return audio_folder_parts(source.path, prefix, own or language, needs_text)
    if isinstance(source, WebDatasetSource):
        return webdataset_parts(source.path, prefix, own or language, needs_text)
    if isinstance(source, KaldiSource):
        return kaldi_parts(source.path, prefix, own or language, needs_text)
    assert isinstance(source, HuggingFaceSource)
    return huggingface_parts(source, prefix, own or language, needs_text)


def _labelled(source: LabelsSource, prefix: str) -> list[Part]:
    """The speech that was labelled, with its labels."""
    from raykd.data.labels import labelled_parts, open_labels

    labels = open_labels(source.path)
    if labels is None:
        raise UserError(f"data.source: {source.path} holds no finished labels; make them with `python -m raykd.label`")
    return labelled_parts(source, labels, all_parts(labels.data, needs_text=False), prefix)
