"""A Whisper in one process that turns utterances of a prepared corpus into text. No Ray.

B rows of a batch, S encoder positions, D width.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import safetensors.torch
import torch
from torch import nn

from raykd import storage
from raykd.config.models import DType
from raykd.data.batches import collate
from raykd.data.corpus import Utterance
from raykd.data.format import FRAMES_PER_S
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.evaluation.decode import encode, transcribe
from raykd.evaluation.expert_use import ExpertUse, uses_of
from raykd.evaluation.scoring import TeacherForced
from raykd.evaluation.teacher_forced import teacher_forced
from raykd.models.experts import expert_languages
from raykd.models.precision import compute_dtype
from raykd.models.routing import speaking
from raykd.models.whisper import load_whisper
from raykd.models.window import heard_frames


@dataclass(frozen=True)
class ModelChoice:
    """Which model to evaluate, and how it is held in memory."""

    model: str
    """Local folder in Hugging Face format, or hub id."""
    revision: str | None = None
    weights: str | None = None
    """A safetensors file whose tensors replace the model's of the same names: what a checkpoint trained."""
    dtype: DType = "auto"
    """auto: bfloat16 on GPUs that have it, float32 elsewhere."""


@dataclass(frozen=True)
class Recognition:
    """What a model made of some utterances, in their order."""

    texts: list[str]
    """Greedy transcripts."""
    seconds: float
    """That encoder and greedy decoding took."""
    teacher_forced: list[TeacherForced] | None = None
    """Where it was asked for."""
    experts: list[ExpertUse] | None = None
    """Of each utterance, where the model has experts for any language."""


class Recogniser:
    """A model with its vocabulary on one device.

    Raises:
        UserError: the model cannot be loaded, or `weights` are not its own.
    """

    def __init__(self, choice: ModelChoice, device: torch.device, max_new_tokens: int):
        self._choice = choice
        self._max_new_tokens = max_new_tokens
        self._encoder = LabelEncoder(choice.model, choice.revision)
        model = load_whisper(choice.model, torch.float32, choice.revision)
        if choice.weights:
            lay_over(model, choice.weights)
        self.model = model.to(device, evaluation_dtype(choice.dtype, device)).eval()  # type: ignore[arg-type]

    def recognise(
        self, utterances: Sequence[Utterance], with_teacher_forced: bool = False, with_expert_use: bool = False
    ) -> Recognition:
        """Transcripts and, on request, loss and likeliest tokens with gold prefixes, which share the encoder's work; and how
        much language experts do with these, where the model has any.

        Raises:
            UserError: the features do not fit the model, or it does not know a language.
        """
        for utterance in utterances:
            self._check(utterance)
        languages = [utterance.language for utterance in utterances]
        longest = max(utterance.mel.shape[1] for utterance in utterances)
        batch = collate(utterances, heard_frames(self.model.config, longest), self._encoder.pad_id)
        begin = self._now()
        watched = with_expert_use and bool(expert_languages(self.model.config))
        with speaking(self.model, languages, watched=watched) as heard:
            states_BSD = encode(self.model, batch.mel_BMF)
        texts = transcribe(self.model, self._encoder, states_BSD, languages, self._max_new_tokens)
        seconds = self._now() - begin
        if not with_teacher_forced and not watched:
            return Recognition(texts, seconds)
        if utterances[0].tokens[-1] != self._encoder.eot_id:  # the corpus was made for models of another vocabulary
            own = [replace(one, tokens=self._encoder.encode(one.text, one.language)) for one in utterances]
            batch = collate(own, batch.mel_BMF.shape[-1], self._encoder.pad_id)
        with speaking(self.model, languages, watched=watched) as read:
            forced = teacher_forced(self.model, self._encoder, states_BSD, batch.decoder_input_BU, batch.labels_BU)
        experts = uses_of(heard | read, batch, expert_languages(self.model.config)) if watched else None
        return Recognition(texts, seconds, forced if with_teacher_forced else None, experts)

    @property
    def _window_frames(self) -> int:
        return 2 * self.model.config.max_source_positions

    def _check(self, utterance: Utterance) -> None:
        name, n_mels = self._choice.model, self.model.config.num_mel_bins
        channels, frames = utterance.mel.shape
        if channels != n_mels:
            raise UserError(f"{name}: wants {n_mels} mel channels, the corpus has {channels}; prepare one for this model")
        if frames > self._window_frames:
            window_s = self._window_frames / FRAMES_PER_S
            raise UserError(f"{name}: {utterance.id} exceeds the model's window of {window_s:g} s; set data.max_duration_s")
        if utterance.language not in self._encoder.languages:
            raise UserError(f"{name}: has no language {utterance.language!r}, which {utterance.id} is in; leave such rows out")

    def _now(self) -> float:
        """Seconds on a clock, when the device has done its work."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()


def evaluation_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """The type of the weights on a device; `auto` is float32 on every CPU, so that scores do not depend on which it is."""
    return compute_dtype("float32" if dtype == "auto" and device.type == "cpu" else dtype, device)


def default_device() -> torch.device:
    """The GPU this process sees, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lay_over(model: nn.Module, weights: str) -> None:
    """Replace tensors of a model by those of the same names in a safetensors file (local, or any pyarrow filesystem).

    Raises:
        UserError: no such file, not safetensors, or a name or shape that the model does not have.
    """
    try:
        tensors = safetensors.torch.load(storage.read_bytes(weights))
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{weights}: cannot be read as safetensors ({' '.join(str(error).split())})") from None
    own = model.state_dict()
    for name, tensor in tensors.items():
        if name not in own:
            raise UserError(f"{weights}: the model has no tensor named {name}; these weights are of another model")
        if own[name].shape != tensor.shape:
            raise UserError(
                f"{weights}: {name} has shape {list(tensor.shape)}, the model's has {list(own[name].shape)}; "
                "these weights are of another model"
            )
        own[name].copy_(tensor)
