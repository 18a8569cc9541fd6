"""Where utterances come from and which of them are used."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from raykd.config.base import Mark, Section, wrong
from raykd.config.shorthand import ONE_OR_MORE, SourcePath, source_shorthand


class Columns(Section):
    """Which columns of a manifest hold what, where they have names that are not known."""

    audio: str | None = None
    """Path or bytes of the audio."""
    text: str | None = None
    """The transcript."""
    language: str | None = None
    """The language."""
    id: str | None = None
    """A name of the utterance that stays."""
    split: str | None = None
    """The split."""
    recording: str | None = None
    """What belongs together: a recording or a speaker."""
    start: str | None = None
    """Where the utterance begins in its file."""
    end: str | None = None
    """Where it ends."""
    duration: str | None = None
    """Its length, for rows with a start and no end."""
    time_unit: Literal["s", "ms", "samples"] = "s"
    """Of start, end and duration."""
    rate: int | None = Field(None, ge=1)
    """Samples a second of `time_unit: samples`."""

    @model_validator(mode="after")
    def _samples_have_a_rate(self) -> "Columns":
        if self.time_unit == "samples" and self.rate is None:
            raise wrong("required with time_unit: samples", "rate")
        return self


class ManifestSource(Section):
    """One row an utterance, in JSONL, CSV, TSV or Parquet; audio as a path (relative to the manifest) or as bytes."""

    kind: Literal["manifest"] = "manifest"
    path: SourcePath
    """File, folder of files or glob; local or any pyarrow filesystem (s3://, gs://)."""
    columns: Columns = Columns()
    """Columns with other names than the known ones; for what they are named for, no other column is then taken."""


class CommonVoiceSource(Section):
    """An unpacked Common Voice release: `train.tsv`, `dev.tsv`, `test.tsv` and `clips/`."""

    kind: Literal["common_voice"] = "common_voice"
    path: SourcePath
    """Folder of one language; local or any pyarrow filesystem."""
    language: str | None = None
    """Overrides the `locale` column."""
    train_rows: int | None = Field(None, ge=1)
    """Of train only so many, those with the most up-votes and of these the fewest down-votes, as the subsets of Multilingual
    DistilWhisper were chosen (naver/multilingual-distilwhisper `data/prepare_common_voice.py`); ties by the table's order
    (ours)."""
    dev_rows: int | None = Field(None, ge=1)
    """Of dev likewise."""


class AudioFolderSource(Section):
    """A folder tree of audio files, each with its transcript beside it (`clip.txt`) or in a `metadata.csv`/`metadata.jsonl`."""

    kind: Literal["audio_folder"] = "audio_folder"
    path: SourcePath
    """Folder; local or any pyarrow filesystem."""
    language: str | None = None
    """Of files that name none."""


class WebDatasetSource(Section):
    """WebDataset tars: members that share a stem make an utterance (`000.flac` + `000.txt` or `000.json`)."""

    kind: Literal["webdataset"] = "webdataset"
    path: SourcePath
    """Tar, folder of tars or glob."""
    language: str | None = None
    """Of utterances that name none."""


class KaldiSource(Section):
    """Kaldi data folders: `wav.scp`, `text`, and where there are any `segments` and `utt2spk`."""

    kind: Literal["kaldi"] = "kaldi"
    path: SourcePath
    """A data folder, or one with several (`data/train`, `data/test`)."""
    language: str | None = None
    """Of all utterances."""


class HuggingFaceSource(Section):
    """A Hugging Face dataset, by hub name or local folder; audio is read undecoded, so torchcodec is not needed."""

    kind: Literal["huggingface"] = "huggingface"
    path: Annotated[str, Mark.PATH_IF_THERE]
    """Hub name such as `google/fleurs`, or a local folder (a dataset repository or `save_to_disk`)."""
    name: str | None = None
    """Configuration of the dataset, such as `cs_cz`."""
    revision: str | None = None
    """Of the hub name."""
    language: str | None = None
    """Of rows that name none."""
    audio_column: str = "audio"
    """Column of the audio."""
    text_column: str | None = None
    """Column of the transcript; None: the first of `text`, `sentence`, `transcription`, `transcript`, `raw_transcription`,
    `normalized_text` that exists."""


class DemoSource(Section):
    """Synthetic speech made on this machine: grammars spoken by eSpeak NG (`raykd demo-data`)."""

    kind: Literal["demo"] = "demo"
    languages: tuple[str, ...] = Field(("cs",), min_length=1)
    """Whisper's codes, of `cs`, `pl`, `uk`, `hu`, `ca` and `en`."""
    hours: float = Field(1.0, gt=0)
    """Hours of training speech, over all languages; dev, test and test_ood come on top."""
    kinds: tuple[str, ...] = ()
    """Sentence kinds of the grammars; empty: all."""
    held_out_words: float = Field(0.0, ge=0, lt=1)
    """Share of the words that train, dev and test never contain; `test_words` then has sentences with them. 0: none."""
    seed: int = 0
    """Of sentences, voices and noise."""


class LabelFilter(Section):
    """Which of a teacher's labels are trained on. Where there is a gold text `max_wer` decides, elsewhere the others do."""

    max_wer: float | None = Field(0.1, ge=0)
    """Highest word error rate of the label against the gold text, both normalised; null: any."""
    min_avg_log_prob: float | None = Field(-1.0, le=0)
    """Lowest mean log-probability of a token that the teacher said; null: any."""
    max_compression_ratio: float | None = Field(2.4, gt=0)
    """Highest ratio of the text's bytes to its zlib-compressed ones: text that repeats itself compresses well; null: any."""
    max_no_speech_prob: float | None = Field(0.6, ge=0, le=1)
    """A label whose mean log-probability is too low is called silence, not unsure, above this no-speech probability."""


class LabelsSource(Section):
    """Speech with the transcripts that a teacher gave it (`python -m raykd.label`); dev and test keep their gold texts."""

    kind: Literal["labels"] = "labels"
    path: SourcePath
    """Folder of the labels."""
    text: Literal["teacher", "gold"] = "teacher"
    """gold: the gold text where there is one and the label passes the filter; the teacher's elsewhere."""
    filter: LabelFilter = LabelFilter()
    """Which labels are used; the others are named in the rejects, and do not count as faults of the data."""


class AutoSource(Section):
    """A folder whose kind is told by what lies in it, when it is listed for the first time."""

    kind: Literal["auto"] = "auto"
    path: SourcePath
    """Folder, local or on any pyarrow filesystem (s3://, gs://)."""
    language: str | None = None
    """As the kind has it, which must know the key."""
    name: str | None = None
    """Likewise."""
    revision: str | None = None
    """Likewise."""
    audio_column: str | None = None
    """Likewise."""
    text_column: str | None = None
    """Likewise."""


_MANIFEST_SUFFIXES = {".jsonl", ".json", ".csv", ".tsv", ".parquet"}


def _kind_of(path: str) -> str:
    location = path.lower().partition("?")[0] if "://" in path else path.lower()
    suffix = PurePosixPath(location.removesuffix(".gz")).suffix
    if suffix in _MANIFEST_SUFFIXES:
        return "manifest"
    return "webdataset" if suffix in {".tar", ".tgz"} else "auto"


Source = Annotated[
    ManifestSource
    | CommonVoiceSource
    | AudioFolderSource
    | WebDatasetSource
    | KaldiSource
    | HuggingFaceSource
    | DemoSource
    | LabelsSource
    | AutoSource,
    Field(discriminator="kind"),
    source_shorthand(_kind_of),
]


class Mix(Section):
    """How often each language is drawn in an epoch, by temperature or shares. Without it every utterance is used once."""

    temperature: float | None = Field(None, ge=1)
    """Share of a language proportional to its utterances to the power of 1/temperature; 1: as they come."""
    shares: dict[str, Annotated[float, Field(gt=0, strict=True)]] | None = Field(None, min_length=1)
    """Share of each language; they are scaled to sum to 1."""

    @model_validator(mode="after")
    def _one_rule(self) -> "Mix":
        if (self.temperature is None) == (self.shares is None):
            raise ValueError("give exactly one of `temperature` and `shares`")
        return self


class PackConfig(Section):
    """Short utterances put together to whole windows: neighbours of one recording, speaker or folder first."""

    timestamps: float = Field(0.5, ge=0, le=1)
    """Share of the windows whose labels hold the times at which their utterances begin and end."""
    previous_text: float = Field(0.2, ge=0, le=1)
    """Share of the windows that read before their labels what was said before in their recording, where anything was."""


class DataConfig(Section):
    """Which utterances are used, and how."""

    source: Annotated[tuple[Source, ...], ONE_OR_MORE] = Field(min_length=1)
    """One source or a list. A string is a shorthand: `demo`, a manifest, a tar, a folder, `hf:NAME`."""
    language: str | None = None
    """Language (Whisper's code, such as `cs`) of utterances that name none."""
    test_splits: tuple[str, ...] = Field(("test", "test_ood"), min_length=1)
    """Splits the teacher and the student are scored on; the first one that exists is the headline of `metrics.json`. Names
    count in any case and with any characters between their words (`test-other` is `test_other`)."""
    dev_share: float = Field(0.05, ge=0, lt=0.5)
    """Share of `train` used as `dev` where the source has none; also as `test` where it has none of `test_splits` and these ask
    for `test`. Chosen by hash of the id.
    0: nothing is cut, every row stays in the split its source names, or in `all` where that names none."""
    max_dev_utterances: int = Field(2000, ge=1)
    """Dev is cut to this many utterances (the smallest id hashes), so that evaluation during training stays cheap."""
    min_duration_s: float = Field(0.1, ge=0)
    """Shorter recordings are rejected."""
    max_duration_s: float = Field(30.0, gt=0)
    """Longer ones are rejected, and those longer than the model's window."""
    min_characters: int = Field(1, ge=1)
    """Letters and digits in a transcript; those with fewer are rejected."""
    markers: Literal["remove", "reject", "keep"] = "remove"
    """What becomes of what stands in transcripts and was not spoken: Whisper's special tokens and timestamps, `[noise]`,
    `(laughter)`, `<unk>`; `<COMMA>` and the like become punctuation. reject: the whole row."""
    max_label_tokens: int = Field(448, ge=8)
    """Longest label sequence, prefix and end included; also bounded by the model's positions."""
    max_reject_share: Annotated[float, Mark.FREE] = Field(0.05, ge=0, le=1)
    """Stop when a larger share of the rows cannot be used."""
    mix: Mix | None = None
    by_length: bool | None = None
    """Utterances of like length in a batch (sorted within 16 batches); None: where the student's window is the clip."""
    pack: PackConfig | None = None
    """Put training utterances together to whole windows, as Whisper's own training hears them; None: each is alone."""
    cache_dir: Annotated[str, Mark.PATH, Mark.FREE] = "cache"
    """Prepared corpora, demo speech and demo teachers are kept here, keyed by content; local or any pyarrow filesystem."""
    shard_utterances: Annotated[int, Mark.FREE] = Field(256, ge=1)
    """Utterances in one prepared shard."""

    @model_validator(mode="after")
    def _tests_are_no_training(self) -> "DataConfig":
        if "train" in {name.strip().lower() for name in self.test_splits}:
            raise wrong("train is trained on and tells nothing of other speech; name a split that is not", "test_splits")
        return self

    @model_validator(mode="after")
    def _some_duration_fits(self) -> "DataConfig":
        if self.min_duration_s >= self.max_duration_s:
            longest, shortest = self.max_duration_s, self.min_duration_s
            raise wrong(f"must be less than max_duration_s, {longest:g} (got {shortest:g})", "min_duration_s")
        return self
