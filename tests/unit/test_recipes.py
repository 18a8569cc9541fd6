"""Recipes become parts with named terms; their numbers follow their schedules."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from raykd.config.schedule import ScheduleConfig
from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.recipes.ce import CeRecipe
from raykd.parts.recipes.kd import KdRecipe
from raykd.parts.recipes.recipe import Recipe, named
from raykd.parts.recipes.terms import TermsRecipe
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import Divergence, Term, TokenTerm
from tests.terms import NOW, active, at_work, labelled


def names(*terms: dict[str, Any]) -> list[str | None]:
    recipe = TermsRecipe.model_validate({"terms": terms, "mlm": "somewhere"})
    return [term.name for term in named(recipe.method().terms)]


def terms_of(recipe: Recipe) -> tuple[Term, ...]:
    return recipe.method().terms


def test_ce() -> None:
    assert named(terms_of(CeRecipe(label_smoothing=0.1))) == (Ce(name="ce", label_smoothing=0.1),)


def test_kd_is_what_distil_whisper_publishes() -> None:
    ce, kl = named(terms_of(KdRecipe()))
    assert ce == Ce(name="ce", weight=0.8)
    assert kl == Kl(name="kl", weight=1.0, target="teacher", student_temperature=2.0, target_temperature=2.0)
    assert isinstance(ce, TokenTerm)
    assert isinstance(kl, TokenTerm)
    assert (ce.scale(NOW), kl.scale(NOW)) == (1.0, 4.0)


def test_kd_written_out_as_terms_is_the_same() -> None:
    kl = {"kind": "kl", "student_temperature": 2.0, "target_temperature": 2.0}
    written = TypeAdapter(Recipe).validate_python({"recipe": "terms", "terms": [{"kind": "ce", "weight": 0.8}, kl]})
    assert written.method() == KdRecipe().method()
    assert TypeAdapter(Recipe).validate_python({"terms": [{"kind": "ce", "weight": 0.8}, kl]}) == written


def test_names_are_unique() -> None:
    assert names({"kind": "ce"}, {"kind": "kl"}) == ["ce", "kl"]
    assert names({"kind": "kl"}, {"kind": "kl", "target": "mlm"}) == ["kl_teacher", "kl_mlm"]
    assert names({"kind": "kl"}, {"kind": "kl"}) == ["kl_teacher", "kl_teacher_2"]
    assert names({"kind": "kl", "name": "soft"}, {"kind": "kl"}) == ["soft", "kl"]
    assert names({"kind": "kl"}, {"kind": "js", "name": "kl"}) == ["kl_teacher", "kl"]
    assert names({"kind": "ce"}, {"kind": "ce", "label_smoothing": 0.1}) == ["ce", "ce_2"]


def test_two_terms_given_one_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"objective\.terms: 2 terms are named `soft`"):
        names({"kind": "kl", "name": "soft"}, {"kind": "js", "name": "soft"})


def test_numbers_follow_their_schedules() -> None:
    fade = ScheduleConfig(start=1.0, end=0.0, until=0.5)
    cool = ScheduleConfig(start=4.0, end=2.0)
    clock = Clock(step=1, steps=4)
    _, kl = active(terms_of(KdRecipe(lambda_kl=fade, temperature=cool)), clock)
    assert isinstance(kl.term, Divergence)
    temperatures = clock.at(kl.term.student_temperature), clock.at(kl.term.target_temperature)
    assert (kl.weight, *temperatures) == (0.5, 3.5, 3.5)


def test_a_term_of_weight_zero_is_left_out_and_its_target_not_run() -> None:
    fade = ScheduleConfig(start=1.0, end=0.0, until=0.5)
    live = at_work(KdRecipe(lambda_kl=fade).method(), Clock(0, 4))
    batch = labelled(torch.tensor([1]))
    with live.targets(batch, live.active(Clock(0, 4))) as said:
        assert set(said) == {"teacher"}
    assert [one.name for one in live.active(Clock(2, 4))] == ["ce"]
    with live.targets(batch, live.active(Clock(2, 4))) as said:
        assert said == {}
