"""Students made from their teacher, from a folder and from nothing: layers, weights, generation config, what trains."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from raykd.config import Config
from raykd.config.load import parse
from raykd.errors import UserError
from raykd.models.demo import new_whisper
from raykd.parts.students.layer_copy import LayerCopy, copy_layers, kept_layers
from raykd.parts.students.pretrained import Pretrained
from raykd.parts.students.scratch import Scratch
from raykd.parts.students.student import Student

DIMS = Scratch(width=16, heads=2, ffn=32, encoder_layers=4, decoder_layers=6, window_s=1.0, max_label_tokens=16)


@pytest.fixture(scope="module")
def teacher() -> WhisperForConditionalGeneration:
    model = new_whisper(DIMS, seed=3)
    # Random norms are all ones and zeros, which would hide a mix-up of layers.
    for i, parameter in enumerate(model.parameters()):
        parameter.data.add_(0.01 * i)
    return model


def build(student: Student, teacher: WhisperForConditionalGeneration | None, seed: int = 0) -> WhisperForConditionalGeneration:
    model = student.make(teacher, seed)
    student.freeze(model)
    return model


def shares_encoder(config: Student, teacher: WhisperForConditionalGeneration, student: WhisperForConditionalGeneration) -> bool:
    encoder = config.learner(student).frozen_encoder
    return encoder is not None and encoder.is_copy_of(teacher)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    ("wanted", "available", "expected"),
    [
        (2, 32, (0, 31)),
        (1, 32, (31,)),
        (4, 32, (0, 10, 20, 31)),
        (3, 6, (0, 2, 5)),
        (6, 6, (0, 1, 2, 3, 4, 5)),
        (None, 4, (0, 1, 2, 3)),
        ((0, 3), 4, (0, 3)),
        ((2, 1), 4, (2, 1)),
    ],
)
def test_layers_are_spread_as_in_distil_whisper(
    wanted: int | tuple[int, ...] | None, available: int, expected: tuple[int, ...]
) -> None:
    assert kept_layers(wanted, available, "student.decoder_layers") == expected


@pytest.mark.parametrize("available", range(1, 33))
def test_a_number_of_layers_is_spread_evenly_with_first_and_last_kept(available: int) -> None:
    for number in range(2, available + 1):
        kept = kept_layers(number, available, "student.decoder_layers")
        assert (kept[0], kept[-1], len(kept)) == (0, available - 1, number)
        gaps = [later - earlier for earlier, later in pairwise(kept)]
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("wanted", [0, 7, (0, 6), (-1,), (2, 2), ()])
def test_impossible_layers_are_refused_with_the_key(wanted: int | tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"^student\.decoder_layers: [^\n]+$"):
        kept_layers(wanted, 6, "student.decoder_layers")


def test_weights_come_from_the_kept_layers(teacher: WhisperForConditionalGeneration) -> None:
    student = copy_layers(teacher, encoder_layers=(1, 3), decoder_layers=3)
    assert (student.config.encoder_layers, student.config.decoder_layers) == (2, 3)
    for i, layer in enumerate((1, 3)):
        assert same_weights(student.model.encoder.layers[i], teacher.model.encoder.layers[layer])
    for i, layer in enumerate((0, 2, 5)):
        assert same_weights(student.model.decoder.layers[i], teacher.model.decoder.layers[layer])
    for part in ("encoder.conv1", "encoder.conv2", "encoder.embed_positions", "encoder.layer_norm"):
        assert same_weights(student.model.get_submodule(part), teacher.model.get_submodule(part))
    for part in ("decoder.embed_tokens", "decoder.embed_positions", "decoder.layer_norm"):
        assert same_weights(student.model.get_submodule(part), teacher.model.get_submodule(part))
    assert student.proj_out.weight is student.model.decoder.embed_tokens.weight
    assert [layer.self_attn.layer_idx for layer in student.model.decoder.layers] == [0, 1, 2]


def test_a_student_with_all_layers_computes_what_its_teacher_computes(teacher: WhisperForConditionalGeneration) -> None:
    student = build(LayerCopy(decoder_layers=None), teacher)
    mel, ids = torch.randn(2, 80, 100), torch.randint(0, 50_000, (2, 5))
    with torch.no_grad():
        assert torch.equal(
            student(mel, decoder_input_ids=ids).logits,
            teacher(mel, decoder_input_ids=ids).logits,
        )


def test_the_student_has_its_own_memory_and_is_float32(teacher: WhisperForConditionalGeneration) -> None:
    half = copy.deepcopy(teacher).bfloat16()
    student = copy_layers(half, None, 2)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    before = half.model.encoder.conv1.weight.clone()
    student.model.encoder.conv1.weight.data.zero_()
    assert torch.equal(half.model.encoder.conv1.weight, before)
    single = copy_layers(teacher, None, 2)
    assert single.model.encoder.conv1.weight.data_ptr() != teacher.model.encoder.conv1.weight.data_ptr()


def test_the_student_generates_and_survives_saving(teacher: WhisperForConditionalGeneration, tmp_path: Path) -> None:
    student = build(LayerCopy(decoder_layers=1), teacher)
    mel = torch.randn(1, 80, 100)
    tokens = student.generate(mel, language="cs", task="transcribe")
    student.save_pretrained(tmp_path)
    reloaded = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    assert same_weights(student, reloaded)
    assert torch.equal(reloaded.generate(mel, language="cs", task="transcribe"), tokens)


def test_generation_config_is_the_teachers_but_for_forced_ids(teacher: WhisperForConditionalGeneration) -> None:
    old = copy.deepcopy(teacher)
    old_generation: Any = old.generation_config
    old_generation.forced_decoder_ids = [[1, None], [2, 50_359]]
    old.config.forced_decoder_ids = [[1, 50_259], [2, 50_359]]
    student = build(LayerCopy(decoder_layers=2), old)
    assert getattr(student.config, "forced_decoder_ids", None) is None
    assert getattr(student.generation_config, "forced_decoder_ids", None) is None
    assert old_generation.forced_decoder_ids is not None, "the teacher stays as it was"
    for key in ("suppress_tokens", "begin_suppress_tokens", "lang_to_id", "task_to_id", "max_length"):
        assert getattr(student.generation_config, key) == getattr(teacher.generation_config, key)


def test_what_trains(teacher: WhisperForConditionalGeneration) -> None:
    frozen = build(LayerCopy(freeze_encoder=True), teacher)
    assert not any(parameter.requires_grad for parameter in frozen.model.encoder.parameters())
    assert all(parameter.requires_grad for parameter in frozen.model.decoder.parameters())
    trained = build(LayerCopy(freeze_encoder=False), teacher)
    still = [name for name, parameter in trained.named_parameters() if not parameter.requires_grad]
    assert still == ["model.encoder.embed_positions.weight"]
    scratch = build(DIMS, None)
    assert scratch.model.encoder.conv1.weight.requires_grad, "a random encoder must train"


def test_the_encoder_is_shared_only_when_frozen_complete_and_equal(teacher: WhisperForConditionalGeneration) -> None:
    frozen = LayerCopy(freeze_encoder=True)
    student = build(frozen, teacher)
    assert shares_encoder(frozen, teacher, student)
    assert shares_encoder(frozen, copy.deepcopy(teacher).bfloat16(), student), "the teacher may teach in bfloat16"
    trained = LayerCopy(freeze_encoder=False)
    assert not shares_encoder(trained, teacher, build(trained, teacher, seed=0))
    thinned = LayerCopy(encoder_layers=2)
    assert not shares_encoder(thinned, teacher, build(thinned, teacher, seed=0))
    reordered = LayerCopy(encoder_layers=(0, 2, 1, 3))
    assert not shares_encoder(reordered, teacher, build(reordered, teacher, seed=0))
    student.model.encoder.layers[3].fc2.bias.data[0] += 1
    assert not shares_encoder(frozen, teacher, student)


def test_a_student_from_a_folder_keeps_its_layers(tiny_whisper_dir: Path) -> None:
    config = Pretrained(model=str(tiny_whisper_dir))
    student = build(config, None)
    assert (student.config.encoder_layers, student.config.decoder_layers) == (1, 2)
    assert shares_encoder(config, student, build(config, student, seed=0))


def test_scratch_depends_on_the_seed_only(teacher: WhisperForConditionalGeneration) -> None:
    assert same_weights(build(DIMS, None, seed=1), build(DIMS, teacher, seed=1))
    assert not same_weights(build(DIMS, None, seed=1), build(DIMS, None, seed=2))


def test_a_student_from_a_teacher_needs_one() -> None:
    tree = {"data": {"source": "demo"}, "train": {"steps": 1}, "objective": "ce"}
    with pytest.raises(UserError, match=r"^run\.yaml: teacher: required, because student\.kind is `layer_copy`; give [^\n]+$"):
        parse(Config, tree, "run.yaml")
    assert parse(Config, {**tree, "student": "scratch"}, "run.yaml").student == Scratch()


def test_freeze_undoes_an_earlier_freeze(teacher: WhisperForConditionalGeneration) -> None:
    student = copy_layers(teacher, None, 2)
    LayerCopy(freeze_encoder=True).freeze(student)
    LayerCopy(freeze_encoder=False).freeze(student)
    assert student.model.encoder.conv1.weight.requires_grad
