"""The gate of an export: it is done when the program that will run it says what the student says in PyTorch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from raykd.errors import RunError, UserError
from raykd.evaluation.normalize import NormalizerChoice
from raykd.evaluation.recogniser import ModelChoice, Recogniser
from raykd.evaluation.scoring import score_sentences, summarize
from raykd.exporting import ctranslate2, experts, ggml, hf
from raykd.exporting.clips import Clip
from raykd.exporting.runtime import Runtime, Window
from raykd.models.expert_files import plain_whisper
from raykd.models.experts import expert_languages
from raykd.models.pruning import kept_tokens, pad_whisper, whole_vocabulary
from raykd.models.routing import EXPERTS
from raykd.models.runtimes import Format, refusal
from raykd.models.whisper import load_processor, load_whisper, read_config
from raykd.models.window import CLIP_MARGIN, clip_margin

WRITERS: dict[Format, ModuleType] = {"hf": hf, "ctranslate2": ctranslate2, "ggml": ggml, "experts": experts}
_SHOWN = 3


@dataclass(frozen=True)
class Checked:
    """One program with one window, beside PyTorch on the same clips."""

    runtime: str
    window: Window
    computes_in: str | None
    """Type that the program computed in; None: it does not say."""
    wer: float
    wer_pytorch: float
    differing_words: float
    """Share of the words that PyTorch has (normalised)."""
    tolerance: float
    rtf: float
    """Seconds a second of audio, features included, clip by clip."""
    rtf_pytorch: float
    differences: tuple[tuple[str, str, str], ...]
    """(id, PyTorch's text, this one's) where they differ."""

    @property
    def passed(self) -> bool:
        """Whether they differ in no more words than they may."""
        return self.differing_words <= self.tolerance


def export(
    model: str,
    out: str,
    form: Format,
    quantization: str,
    clips: Sequence[Clip],
    *,
    pad_vocabulary: bool = False,
    whole_tokenizer: str | None = None,
    expert: str | None = None,
    tolerance: float | None = None,
    normalizer: NormalizerChoice = "auto",
    progress: Callable[[str], None] = lambda text: None,
) -> list[Checked]:
    """Convert a student, load the result in the programs that run such files, and compare with PyTorch on the clips.

    Args:
        model: folder in Hugging Face format.
        out: local folder for the result.
        form: what to write.
        quantization: of the weights, by the format's own names.
        clips: what is transcribed.
        pad_vocabulary: write the whole vocabulary of a student whose own was cut.
        whole_tokenizer: folder or hub id of a model with the whole vocabulary, for that.
        expert: of a model with language experts: the language whose experts take the shared blocks' place, or `none` for the
            base model alone; None: the model as it is.
        tolerance: share of words that may differ; None: what the program and the rounding of weights make likely.
        normalizer: of the texts before they are compared.
        progress: told what is done.

    Raises:
        UserError: the format cannot hold this model, or it cannot be read.
        RunError: a program says something else than the student; the clip and both texts are in the message.
    """
    config = read_config(model)
    writer = _writer(model, config, form, quantization, pad_vocabulary, expert)
    if expert is not None:
        clips = _spoken(clips, expert, expert_languages(config))
    student, processor = _student(model, config, expert, pad_vocabulary, whole_tokenizer)
    progress(f"writing {form}")
    writer.convert(student, processor, out, quantization)
    windows: tuple[Window, ...] = ("whole", "clip") if clip_margin(config) is not None else ("whole",)
    expected = {window: _by_pytorch(model, clips, window) for window in windows}
    found = []
    for runtime in writer.runtimes(out, windows, quantization):
        for window in runtime.windows:
            progress(f"{runtime.name}, {window} window")
            said = _timed(clips, partial(runtime.transcribe, window=window))
            allowed = runtime.tolerance if tolerance is None else tolerance
            found.append(_compared(runtime, window, clips, expected[window], said, allowed, normalizer))
    failed = [one for one in found if not one.passed]
    if failed:
        raise RunError("\n".join(_told(one) for one in failed))
    return found


def _writer(
    model: str, config: WhisperConfig, form: Format, quantization: str, pad_vocabulary: bool, expert: str | None
) -> Any:
    """What writes the format, once it is found that it can hold this model, and that its programs are here.

    Raises:
        UserError: it cannot, or they are not.
    """
    writer = WRITERS[form]
    if quantization not in writer.QUANTIZATIONS:
        raise UserError(f"--quantization: {form} has {', '.join(writer.QUANTIZATIONS)} (got {quantization})")
    if expert is not None:
        if form == "experts" or not expert_languages(config):
            raise UserError("--expert: is for models with language experts and the formats hf, ctranslate2 and ggml")
        config = type(config).from_dict({**config.to_dict(), EXPERTS: None})
    if reason := refusal(config, form, pad_vocabulary):
        raise UserError(f"--format {form}: {model}: {reason}")
    missing = [name for name in writer.PROGRAMS if find_spec(name) is None]
    if missing:
        raise UserError(f"--format {form}: {', '.join(missing)} is not installed; run `pip install 'raykd[export]'`")
    return writer


def _student(
    model: str, config: WhisperConfig, expert: str | None, pad_vocabulary: bool, whole_tokenizer: str | None
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """The student as it is to be written.

    Raises:
        UserError: one language's experts cannot take the shared blocks' place, or the whole vocabulary is not given.
    """
    student, processor = load_whisper(model), load_processor(model)
    if expert is not None:
        try:
            student = plain_whisper(student, None if expert == "none" else expert)
        except UserError as error:
            raise UserError(f"--expert {expert}: {model}: {error}") from None
    if pad_vocabulary and kept_tokens(config) is not None:
        if whole_tokenizer is None:
            raise UserError("--pad-vocabulary: give --tokenizer, a model with the whole vocabulary, such as the run's teacher")
        pad_whisper(student, whole_vocabulary(config))
        processor.tokenizer = load_processor(whole_tokenizer).tokenizer
    return student, processor


def _spoken(clips: Sequence[Clip], expert: str, languages: Sequence[str]) -> Sequence[Clip]:
    """The clips that a plain model can be compared on: those in its language, or in languages without an expert.

    Raises:
        UserError: there is none.
    """
    found = [clip for clip in clips if (clip.language not in languages if expert == "none" else clip.language == expert)]
    if not found:
        wanted = f"in another language than {', '.join(languages)}" if expert == "none" else f"in {expert}"
        raise UserError(f"--expert {expert}: there is no clip {wanted} to try it on; give some with --data SOURCE")
    return found


def _by_pytorch(model: str, clips: Sequence[Clip], window: Window) -> tuple[list[str], float]:
    config = read_config(model)
    # Half of the decoder's positions, as in openai-whisper: the other programs stop there too.
    recogniser = Recogniser(ModelChoice(model, dtype="float32"), torch.device("cpu"), config.max_target_positions // 2)
    if window == "whole":
        setattr(recogniser.model.config, CLIP_MARGIN, None)

    def transcribe(clip: Clip) -> str:
        utterance = clip.utterance(config.num_mel_bins, 2 * config.max_source_positions)
        return recogniser.recognise([utterance]).texts[0]

    return _timed(clips, transcribe)


def _timed(clips: Sequence[Clip], transcribe: Callable[[Clip], str]) -> tuple[list[str], float]:
    """The texts and the seconds that they took, after one clip to warm up."""
    transcribe(clips[0])
    begin = time.perf_counter()
    texts = [transcribe(clip) for clip in clips]
    return texts, time.perf_counter() - begin


def _compared(
    runtime: Runtime,
    window: Window,
    clips: Sequence[Clip],
    pytorch: tuple[list[str], float],
    theirs: tuple[list[str], float],
    tolerance: float,
    normalizer: NormalizerChoice,
) -> Checked:
    references, languages = [clip.text for clip in clips], [clip.language for clip in clips]
    audio_s = sum(clip.duration_s for clip in clips)

    def wer(against: Sequence[str], texts: Sequence[str]) -> float:
        return float(summarize(score_sentences(against, texts, languages, normalizer), normalizer)["wer"])

    pairs = score_sentences(pytorch[0], theirs[0], languages, normalizer)
    differences = [
        (clip.id, ours, text)
        for clip, ours, text, pair in zip(clips, *(pytorch[0], theirs[0]), pairs, strict=True)
        if pair.words.errors
    ]
    return Checked(
        runtime=runtime.name,
        window=window,
        computes_in=runtime.computes_in,
        wer=wer(references, theirs[0]),
        wer_pytorch=wer(references, pytorch[0]),
        differing_words=float(summarize(pairs, normalizer)["wer"]),
        tolerance=tolerance,
        rtf=theirs[1] / audio_s,
        rtf_pytorch=pytorch[1] / audio_s,
        differences=tuple(differences),
    )


def _told(one: Checked) -> str:
    lines = [
        f"{one.runtime}, {one.window} window: {100 * one.differing_words:.2f} % of the words differ from PyTorch's, "
        f"{100 * one.tolerance:.2f} % may; the export is not done"
    ]
    lines += [f"  {name}\n    PyTorch: {ours}\n    {one.runtime}: {theirs}" for name, ours, theirs in one.differences[:_SHOWN]]
    return "\n".join(lines)


def as_json(checked: Sequence[Checked]) -> list[dict[str, object]]:
    """For `export.json`."""
    return [asdict(one) for one in checked]
