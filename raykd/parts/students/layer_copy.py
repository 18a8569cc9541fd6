"""A student made of some of its teacher's layers."""

import copy
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from raykd.errors import UserError
from raykd.parts.students.student import Student

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor


def _each_once(layers: int | tuple[int, ...]) -> int | tuple[int, ...]:
    if isinstance(layers, tuple) and len(set(layers)) < len(layers):
        raise ValueError(f"a layer is listed twice (got {list(layers)})")
    return layers


Layers = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)],
    AfterValidator(_each_once),
]


class LayerCopy(Student):
    """Distil-Whisper's student: the teacher with fewer layers. It is the default; `{decoder_layers: 2}` says it all."""

    kind: Literal["layer_copy"] = "layer_copy"
    from_teacher: ClassVar[bool] = True

    encoder_layers: Layers | None = None
    """How many of the teacher's layers, evenly spaced with first and last kept, or which (from 0). None: all."""
    decoder_layers: Layers | None = 2
    """Likewise; `1` is the last."""

    @property
    def origin(self) -> str:
        """A copy of the teacher's layers."""
        return "teacher"

    def started_from(self) -> str:
        """Which layers."""
        layers = self.decoder_layers
        decoder = "all decoder layers" if layers is None else f"decoder layers {json.dumps(layers)} of the teacher"
        if isinstance(layers, int):
            decoder = f"{layers} evenly spaced decoder {'layer' if layers == 1 else 'layers'} of the teacher"
        return f"{decoder} and {'its frozen encoder' if self.freeze_encoder else 'its encoder'}"

    def make(self, teacher: "WhisperForConditionalGeneration | None", seed: int) -> "WhisperForConditionalGeneration":
        """See `Student`."""
        assert teacher is not None
        return copy_layers(teacher, self.encoder_layers, self.decoder_layers)

    def processor(self, teacher: str | None, revision: str | None) -> "WhisperProcessor":
        """The teacher's."""
        from raykd.models.whisper import load_processor

        assert teacher is not None
        return load_processor(teacher, revision)

    def dimensions(self, teacher: "WhisperConfig | None") -> "WhisperConfig | None":
        """The teacher's, with fewer layers."""
        if teacher is None:
            return None
        made = copy.deepcopy(teacher)
        made.encoder_layers = len(kept_layers(self.encoder_layers, teacher.encoder_layers, "student.encoder_layers"))
        made.decoder_layers = len(kept_layers(self.decoder_layers, teacher.decoder_layers, "student.decoder_layers"))
        return made


def copy_layers(
    teacher: "WhisperForConditionalGeneration",
    encoder_layers: int | Sequence[int] | None,
    decoder_layers: int | Sequence[int] | None,
) -> "WhisperForConditionalGeneration":
    """A float32 Whisper from some of the teacher's layers; embeddings, positions, norms and output head are copied.

    This is the initialisation of Distil-Whisper (Gandhi et al. 2023, arXiv 2311.00430, section 4.1).

    Raises:
        UserError: a layer that the teacher does not have.
    """
    from transformers import WhisperForConditionalGeneration

    from raykd.models.lora import LORA
    from raykd.models.routing import EXPERTS
    from raykd.models.shrinking import SHRINKING
    from raykd.models.whisper import drop_forced_ids

    encoder_kept = kept_layers(encoder_layers, teacher.config.encoder_layers, "student.encoder_layers")
    decoder_kept = kept_layers(decoder_layers, teacher.config.decoder_layers, "student.decoder_layers")
    config = copy.deepcopy(teacher.config)
    config.encoder_layers, config.decoder_layers = len(encoder_kept), len(decoder_kept)
    config.dtype = torch.float32
    for key in (EXPERTS, LORA, SHRINKING):  # of a teacher that has them, the shared layers are copied
        if hasattr(config, key):
            delattr(config, key)
    with torch.device("meta"):
        student = WhisperForConditionalGeneration(config)
    source = {}
    for name in student.state_dict():
        teacher_name = _renumber(_renumber(name, "model.encoder.layers.", encoder_kept), "model.decoder.layers.", decoder_kept)
        source[name] = _float32_copy(teacher.get_parameter(teacher_name))
    student.load_state_dict(source, assign=True)
    student.tie_weights()
    student.generation_config = copy.deepcopy(teacher.generation_config)
    drop_forced_ids(student)
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


def _renumber(name: str, prefix: str, kept: Sequence[int]) -> str:
    """The teacher's name of a student parameter: layer i of the student is layer kept[i] of the teacher."""
    if not name.startswith(prefix):
        return name
    layer, _, rest = name.removeprefix(prefix).partition(".")
    return f"{prefix}{kept[int(layer)]}.{rest}"


def _float32_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def _keep_alignment_heads(generation: "GenerationConfig", decoder_kept: Sequence[int]) -> None:
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
