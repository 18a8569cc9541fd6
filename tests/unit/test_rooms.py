"""Parts in a config: the short ways to write them, and one line that names the key for every mistake in one."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from raykd.config import Config
from raykd.config.load import parse
from raykd.errors import UserError
from raykd.parts.inputs.spec_augment import SpecAugment
from raykd.parts.recipes.kd import KdRecipe
from raykd.parts.rooms import ROOMS
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import TERMS_ROOM, Term
from tests.terms import with_names

TREE: dict[str, Any] = {
    "data": {"source": "demo"},
    "teacher": {"model": "openai/whisper-tiny"},
    "train": {"steps": 100},
}
SCRATCH_KEYS = (
    "decoder_layers, dropout, encoder_layers, ffn, freeze_encoder, gradient_checkpointing, heads, kind, max_label_tokens, "
    "vocabulary, width, window, window_s"
)
KL_KEYS = "contexts, kind, name, of, scale_by_temperature, student_temperature, target, target_temperature, weight"
MASK_KEYS = "frequency_masks, frequency_width, kind, teacher_hears, time_masks, time_width"


def read(overrides: Sequence[str] = ()) -> Config:
    return parse(Config, TREE, "run.yaml", overrides)


SHORT_FORMS: list[tuple[str, str, str]] = [
    ("objective", "kd", "{recipe: kd}"),
    ("objective", "{terms: [kl]}", "{recipe: terms, terms: [{kind: kl}]}"),
    ("objective", "{terms: [kl], mlm: a}", "{terms: [kl], targets: {mlm: {kind: mlm, model: a}}}"),
    (
        "objective",
        "{terms: [kl], mlm: {model: a, passes: 3}}",
        "{terms: [kl], targets: {mlm: {kind: mlm, model: a, passes: 3}}}",
    ),
    ("objective", "{terms: [kl], context: gold}", "{terms: [kl], context: {kind: gold}}"),
    ("objective", "{recipe: mlm_kd, mlm: a}", "{recipe: mlm_kd, mlm: {kind: mlm, model: a}}"),
    ("student", "scratch", "{kind: scratch}"),
    ("student", "{init: scratch}", "{kind: scratch}"),
    ("student", "{init: scratch, scratch: {width: 64}}", "{kind: scratch, width: 64}"),
    ("student", "{init: openai/whisper-small}", "{kind: pretrained, model: openai/whisper-small}"),
    ("student", "{decoder_layers: 1}", "{kind: layer_copy, decoder_layers: 1}"),
    ("student", "{init: teacher, decoder_layers: 1}", "{kind: layer_copy, decoder_layers: 1}"),
    ("inputs", "[spec_augment]", "[{kind: spec_augment}]"),
]


@pytest.mark.parametrize(("key", "short", "full"), SHORT_FORMS)
def test_a_part_may_be_written_short(key: str, short: str, full: str) -> None:
    assert read([f"{key}={short}"]) == read([f"{key}={full}"])


def test_spec_augment_of_the_data_comes_after_other_inputs() -> None:
    config = read(["inputs=[{kind: spec_augment, time_masks: 1}]", "data.spec_augment={}"])
    assert config.inputs == (SpecAugment(time_masks=1), SpecAugment())
    assert read(["data.spec_augment="]).inputs == ()


REFUSED = {
    "objective={terms: [ce, {weight: 2}]}": "objective.terms[1].kind: required, but not given; it is <terms>",
    "objective={terms: [kl], targets: {a: {model: b}}}": ("objective.targets.a.kind: required, but not given; it is <targets>"),
    "objective={terms: [kl], targets: {a: {kind: gpt}}}": 'objective.targets.a.kind: must be <targets> (got "gpt")',
    "objective={terms: [kl], mlm: 3}": "objective.mlm: must be text (got 3); put it in quotes",
    "student.init=3": "student.init: must be text (got 3); put it in quotes",
    "data.spec_augment=3": "data.spec_augment: must be a section of `key: value` (got 3)",
    "objective={terms: [{kind: kl, wieght: 1}]}": (
        f"objective.terms[0].wieght: unknown key; did you mean objective.terms[0].weight? known here: {KL_KEYS}"
    ),
    "objective={terms: [kl], targets: {mlm: {kind: whisper, model: a, modle: b}}}": (
        "objective.targets.mlm.modle: unknown key; did you mean objective.targets.mlm.model? "
        "known here: dtype, kind, model, revision, sharded"
    ),
    "objective={terms: [kl], mlm: {model: a, pases: 2}}": (
        "objective.mlm.pases: unknown key; did you mean objective.mlm.passes? "
        "known here: cache_mb, dtype, kind, model, passes, positions"
    ),
    "student={init: a/b, decoder_layers: 2}": (
        "student.decoder_layers: unknown key; known here: freeze_encoder, gradient_checkpointing, kind, model, "
        "revision, vocabulary, window"
    ),
    "student={init: scratch, scratch: {hedas: 2}}": (
        f"student.scratch.hedas: unknown key; did you mean student.scratch.heads? known here: {SCRATCH_KEYS}"
    ),
    "data.spec_augment={timemasks: 2}": (
        f"data.spec_augment.timemasks: unknown key; did you mean time_masks? known here: {MASK_KEYS}"
    ),
    "student={kind: scratch, heads: 3}": "student.heads: must be a divisor of width, 128 (got 3)",
    "inputs=[{kind: spec_augment, time_width: 0}]": "inputs[0].time_width: must be at least 1 (got 0)",
    "data.spec_augment={time_masks: -1}": "data.spec_augment.time_masks: must be at least 0 (got -1)",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_mistake_in_a_part_is_one_line_that_names_its_key(override: str) -> None:
    with pytest.raises(UserError) as refused:
        read([override])
    assert str(refused.value) == f"command line: {with_names(REFUSED[override])}"


def test_a_part_may_be_given_as_it_is() -> None:
    recipe = KdRecipe(temperature=3.0)
    assert Config.model_validate({**TREE, "objective": recipe}).objective is recipe


def test_each_part_has_a_name_and_a_room_of_its_own() -> None:
    for room in ROOMS:
        assert room.base is not None
        own = {name: part for name, part in room.parts.items() if part.__module__.startswith("raykd.")}
        for name, part in own.items():
            assert issubclass(part, room.base), name
            assert part.model_fields[room.tag].default == name
            assert part.__doc__, name


def test_a_part_needs_a_name_that_no_other_has() -> None:
    class Nameless(Term):
        """Without a name."""

    class Clashing(Kl):
        """With another's."""

        kind: Literal["kl"] = "kl"

    with pytest.raises(ValueError, match='Nameless: a part of terms needs a name: kind: Literal\\["name"\\] = "name"'):
        TERMS_ROOM.add(Nameless)
    with pytest.raises(ValueError, match=r"Clashing: terms has a part named kl already, in .*terms/kl\.py"):
        TERMS_ROOM.add(Clashing)
    assert TERMS_ROOM.parts["kl"] is Kl
