"""`raykd config [KEY]`: what is found by a path, a bare name and a short form, and how types and defaults are told."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from raykd import config_help
from raykd.config import Config, MlmRunConfig
from raykd.config.base import Mark, Section
from raykd.config.compare import CompareConfig
from raykd.config.described import ROOTS, places
from raykd.config.reference import page
from raykd.config.schedule import ScheduleConfig, Weight
from raykd.config.training import TrackingConfig
from raykd.config.tune import SweepConfig
from raykd.config.words import described, holding, written
from raykd.errors import UserError
from raykd.parts.outside import load_parts_file
from raykd.parts.recipes.kd import KdRecipe
from raykd.parts.students.layer_copy import LayerCopy
from tests.outside import forgotten, readme_method


def first_lines(asked: str) -> list[str]:
    """The line that names each thing found."""
    return [entry.splitlines()[0] for entry in config_help.help_on(asked).split("\n\n") if not entry.startswith(" ")]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("train.lr", ["train.lr: number (above 0); default 0.0001"]),
        ("lr", ["train.lr: number (above 0); default 0.0001"]),
        ("objective.kd.lambda_kl", ["objective.lambda_kl  (recipe: kd): number (at least 0) or schedule; default 1.0"]),
        (
            "objective.lambda_kl",
            [
                f"objective.lambda_kl  (recipe: {recipe}): number (at least 0) or schedule; default 1.0"
                for recipe in ("kd", "real_time", "homodistil", "cdd")
            ],
        ),
        ("objective.terms[2].weight", ["objective.terms.weight: number (at least 0) or schedule; default 1.0"]),
        ("kd", ["objective  (recipe: kd)"]),
        ("data.spec_augment", ["inputs  (kind: spec_augment)"]),
        ("student.init", ["student"]),
        ("objective.recipe", ["objective"]),
        ("data.source", ["data.source: one or a list of sections; required", "data.source"]),
    ],
)
def test_what_is_asked_for_is_found(asked: str, found: list[str]) -> None:
    assert first_lines(asked) == found


def test_a_bare_name_finds_every_place() -> None:
    found = first_lines("label_smoothing")
    assert {line.partition(":  ")[0].split("  ")[0] for line in found} == {
        "objective.label_smoothing",
        "objective.terms.label_smoothing",
    }
    assert len(found) >= 4


def test_a_section_shows_all_its_kinds_and_their_keys() -> None:
    text = config_help.help_on("objective")
    for recipe in ("kd", "mlm_kd", "dr_kd", "imitkd", "akd", "ce", "terms"):
        assert f"  recipe: {recipe}\n" in text
    assert "    lambda_ce: number (at least 0) or schedule; default 0.8" in text
    assert "run_distillation.py" in text, "the docstring of the recipe"


def test_an_unknown_key_is_told_what_is_near() -> None:
    with pytest.raises(UserError, match=r"^trian\.lr: unknown key; did you mean train\.lr"):
        config_help.help_on("trian.lr")
    with pytest.raises(UserError, match=r"^lambda_k1: unknown key; did you mean lambda_kl"):
        config_help.help_on("lambda_k1")
    with pytest.raises(UserError, match="raykd config lists the sections"):
        config_help.help_on("?")


def test_without_a_key_every_kind_of_config_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    config_help.main([])
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    assert named == [*Config.model_fields, *MlmRunConfig.model_fields, *CompareConfig.model_fields, *SweepConfig.model_fields]


def test_parts_of_ones_own_are_helped_on_but_not_in_the_reference(tmp_path: Path) -> None:
    before = page()
    with forgotten():
        load_parts_file(str(readme_method(tmp_path)))
        assert "How much more hard tokens count." in config_help.help_on("hard_kd.gamma")
        assert page() == before


@pytest.mark.slow
def test_every_path_of_the_reference_can_be_asked_for() -> None:
    for root in ROOTS.values():
        for place in places(root)[1:]:
            assert config_help.help_on(place.path)


class Sample(Section):
    """A section of all types."""

    whole: Annotated[int | None, Mark.FREE] = Field(None, ge=1)
    number: Annotated[float, Field(gt=0, lt=1)] = 0.5
    share: float = Field(0.0, ge=0, le=1)
    text: str = "a b"
    path: Annotated[str, Mark.PATH] = "here"
    choice: Literal["one", "two"] = "one"
    pair: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    named: dict[str, float] | None = None
    weight: Weight = 1.0
    inner: TrackingConfig = TrackingConfig()


@pytest.mark.parametrize(
    ("key", "holds", "default"),
    [
        ("whole", "whole number (at least 1) or null", "null"),
        ("number", "number (above 0 and below 1)", "0.5"),
        ("share", "number (0 to 1)", "0.0"),
        ("text", "text", '"a b"'),
        ("path", "path", "here"),
        ("choice", "`one`, `two`", "one"),
        ("pair", "list of 2 numbers (at least 0)", "[0.0, 1.0]"),
        ("many", "list of whole numbers", "[]"),
        ("named", "mapping of names to numbers or null", "null"),
        ("weight", "number (at least 0) or schedule", "1.0"),
        ("inner", "section", "{}"),
    ],
)
def test_types_and_defaults_are_told_in_words(key: str, holds: str, default: str) -> None:
    field = Sample.model_fields[key]
    assert holding(field) == holds
    assert written(field.default) == default


def test_a_section_as_default_says_its_kind_and_what_is_unusual() -> None:
    assert written(LayerCopy()) == "{kind: layer_copy}"
    assert written(KdRecipe(lambda_kl=ScheduleConfig(start=1.0, end=0.0))) == "{recipe: kd, lambda_kl: {start: 1.0, end: 0.0}}"


def test_docstrings_are_paragraphs_and_none_is_null() -> None:
    assert described("One\n    line; None: off.\n\n    - a\n      b\n    - c") == "One line; null: off.\n\n- a b\n- c"
