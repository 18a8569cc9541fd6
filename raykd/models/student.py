"""The student: made from some of its teacher's layers, taken from a hub id or folder, or new."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from raykd.config.models import StudentConfig
from raykd.errors import UserError
from raykd.models.demo import new_whisper
from raykd.models.whisper import load_whisper


def build_student(
    config: StudentConfig, teacher: WhisperForConditionalGeneration | None, seed: int
) -> WhisperForConditionalGeneration:
    """The student before training: float32, in eval mode, with `freeze` applied and a generation config that fits its layers.

    Raises:
        UserError: a layer that the teacher does not have, a model that cannot be loaded, or one that the teacher cannot teach.
    """
    if config.init == "teacher":
        if teacher is None:
            raise UserError("student.init: `teacher` needs a teacher section; give one, or `scratch`, a hub id or a folder")
        student = copy_layers(teacher, config.encoder_layers, config.decoder_layers)
    elif config.init == "scratch":
        student = new_whisper(config.scratch, seed)
    else:
        student = load_whisper(config.init, torch.float32, config.revision)
        _drop_forced_ids(student)
    if teacher is not None:
        check_compatible(teacher.config, student.config)
    freeze(student, config)
    return student


def copy_layers(
    teacher: WhisperForConditionalGeneration,
    encoder_layers: int | Sequence[int] | None,
    decoder_layers: int | Sequence[int] | None,
) -> WhisperForConditionalGeneration:
    """A float32 Whisper from some of the teacher's layers; embeddings, positions, norms and output head are copied.

    This is the initialisation of Distil-Whisper (Gandhi et al. 2023, arXiv 2311.00430, section 4.1).

    Raises:
        UserError: a layer that the teacher does not have.
    """
    encoder_kept = kept_layers(encoder_layers, teacher.config.encoder_layers, "student.encoder_layers")
    decoder_kept = kept_layers(decoder_layers, teacher.config.decoder_layers, "student.decoder_layers")
    config = copy.deepcopy(teacher.config)
    config.encoder_layers, config.decoder_layers = len(encoder_kept), len(decoder_kept)
    config.dtype = torch.float32
    with torch.device("meta"):
        student = WhisperForConditionalGeneration(config)
    source = {}
    for name in student.state_dict():
        teacher_name = _renumber(_renumber(name, "model.encoder.layers.", encoder_kept), "model.decoder.layers.", decoder_kept)
        source[name] = _float32_copy(teacher.get_parameter(teacher_name))
    student.load_state_dict(source, assign=True)
    student.tie_weights()
    student.generation_config = copy.deepcopy(teacher.generation_config)
    _drop_forced_ids(student)
    _keep_alignment_heads(student.generation_config, decoder_kept)
    return student.eval()


def kept_layers(wanted: int | Sequence[int] | None, available: int, key: str) -> tuple[int, ...]:
    """Which of `available` layers a student keeps, counted from 0.

    A number means that many, evenly spaced: floor(i (L - 1) / (k - 1)), the last one L - 1, as `create_student_model.py` of
    Distil-Whisper does; a single layer is the last one, also as there. None means all.

    Raises:
        UserError: more layers than there are, or a listed layer that does not exist or comes twice. `key` names the config key.
    """
    if wanted is None:
        return tuple(range(available))
    if isinstance(wanted, int):
        if not 1 <= wanted <= available:
            raise UserError(f"{key}: {wanted} layers asked for, but the teacher has {available}; give 1 to {available}")
        if wanted == 1:
            return (available - 1,)
        return tuple(i * (available - 1) // (wanted - 1) for i in range(wanted))
    layers = tuple(wanted)
    unknown = [layer for layer in layers if not 0 <= layer < available]
    if unknown or not layers:
        raise UserError(f"{key}: the teacher has layers 0 to {available - 1}, not {unknown}; give a list of those")
    if len(set(layers)) < len(layers):
        raise UserError(f"{key}: {list(layers)} names a layer twice; give each layer once")
    return layers


def freeze(student: WhisperForConditionalGeneration, config: StudentConfig) -> None:
    """Set `requires_grad` of every parameter.

    With `freeze_encoder` the encoder does not train, unless it is new (`init: scratch`): random features teach nothing. The
    encoder's sinusoidal positions never train.
    """
    student.requires_grad_(True)
    student.model.encoder.requires_grad_(not config.freeze_encoder or config.init == "scratch")
    student.model.encoder.embed_positions.requires_grad_(False)


def shares_encoder(
    config: StudentConfig, teacher: WhisperForConditionalGeneration, student: WhisperForConditionalGeneration
) -> bool:
    """Whether the student's encoder is a complete frozen copy of the teacher's, so that it can run once for both.

    The weights themselves are compared, in the teacher's type; so a student from a folder (such as distil-large-v2 with its
    teacher large-v2) also shares.
    """
    theirs, ours = teacher.model.encoder, student.model.encoder
    if not config.freeze_encoder or any(parameter.requires_grad for parameter in ours.parameters()):
        return False
    if teacher.config.encoder_attention_heads != student.config.encoder_attention_heads:
        return False
    theirs_by_name, ours_by_name = dict(theirs.named_parameters()), dict(ours.named_parameters())
    return theirs_by_name.keys() == ours_by_name.keys() and all(
        _same(theirs_by_name[name], ours_by_name[name]) for name in theirs_by_name
    )


def check_compatible(teacher: WhisperConfig, student: WhisperConfig) -> None:
    """Refuse a pair whose inputs or outputs differ, since teacher and student see the same mel and the same token ids.

    A vocabulary of 51 866 is refused beside one of 51 865 rather than mapped: large-v3 put <|yue|> among the languages, which
    shifts every later special token by one, but it also hears 128 mel channels instead of 80, so no published pair gains from a
    mapping.

    Raises:
        UserError: vocabulary, mel channels or window differ, or the student's label positions exceed the teacher's.
    """
    pairs = [
        (
            "vocabulary tokens",
            teacher.vocab_size,
            student.vocab_size,
            "token ids mean different things (51866 of large-v3 has <|yue|>, which shifts the ids after it)",
        ),
        ("mel channels", teacher.num_mel_bins, student.num_mel_bins, "they hear different features"),
        (
            "encoder positions",
            teacher.max_source_positions,
            student.max_source_positions,
            "their windows differ (50 positions a second)",
        ),
    ]
    for what, theirs, ours, meaning in pairs:
        if theirs != ours:
            raise UserError(
                f"student.init: the teacher has {theirs} {what}, the student {ours}: {meaning}; "
                "make the student from the teacher, or choose a pair of one Whisper generation"
            )
    if student.max_target_positions > teacher.max_target_positions:
        raise UserError(
            f"student.init: the student has {student.max_target_positions} label positions, the teacher only "
            f"{teacher.max_target_positions}; give the student at most as many (student.scratch.max_label_tokens)"
        )


def _renumber(name: str, prefix: str, kept: Sequence[int]) -> str:
    """The teacher's name of a student parameter: layer i of the student is layer kept[i] of the teacher."""
    if not name.startswith(prefix):
        return name
    layer, _, rest = name.removeprefix(prefix).partition(".")
    return f"{prefix}{kept[int(layer)]}.{rest}"


def _float32_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def _same(theirs: Tensor, ours: Tensor) -> bool:
    return theirs.shape == ours.shape and torch.equal(theirs, ours.to(theirs.device, theirs.dtype))


def _drop_forced_ids(student: WhisperForConditionalGeneration) -> None:
    """Forced ids fix one language and task; the decoder prompt is given by language instead."""
    holders: tuple[Any, ...] = (student.config, student.generation_config)
    for holder in holders:
        if getattr(holder, "forced_decoder_ids", None) is not None:
            holder.forced_decoder_ids = None


def _keep_alignment_heads(generation: GenerationConfig, decoder_kept: Sequence[int]) -> None:
    """Renumber the heads of kept layers; without any, the attribute goes.

    transformers then says that word times are not available, and converters fall back to their default. The teacher's own
    numbers would crash faster-whisper (SYSTRAN/faster-whisper issue 1283).
    """
    heads = getattr(generation, "alignment_heads", None) or []
    new_layer = {layer: i for i, layer in enumerate(decoder_kept)}
    kept = [[new_layer[layer], head] for layer, head in heads if layer in new_layer]
    if kept:
        generation.update(alignment_heads=sorted(kept))
    elif hasattr(generation, "alignment_heads"):
        del generation.alignment_heads
