"""Recipes become named terms; terms become numbers at a step."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from raykd.config.objective import CeRecipe, KdRecipe, ObjectiveConfig, ScheduleConfig, TermConfig, TermsObjective
from raykd.errors import UserError
from raykd.objectives.recipes import ResolvedTerm, resolve_terms, targets_needed, terms_of


def named(*terms: dict[str, Any]) -> list[str | None]:
    return [term.name for term in terms_of(TermsObjective.model_validate({"terms": terms, "mlm": "somewhere"}))]


def test_ce() -> None:
    assert terms_of(CeRecipe(recipe="ce", label_smoothing=0.1)) == (TermConfig(kind="ce", name="ce", label_smoothing=0.1),)


def test_kd_is_what_distil_whisper_publishes() -> None:
    ce, kl = resolve_terms(terms_of(KdRecipe(recipe="kd")), 0, 10)
    assert ce == ResolvedTerm("ce", "ce", weight=0.8)
    assert kl == ResolvedTerm("kl", "kl", weight=1.0, target="teacher", student_temperature=2.0, target_temperature=2.0)
    assert (ce.scale, kl.scale) == (1.0, 4.0)


def test_kd_written_out_as_terms_is_the_same() -> None:
    kl = {"kind": "kl", "student_temperature": 2.0, "target_temperature": 2.0}
    written = TypeAdapter(ObjectiveConfig).validate_python({"recipe": "terms", "terms": [{"kind": "ce", "weight": 0.8}, kl]})
    assert resolve_terms(terms_of(written), 3, 10) == resolve_terms(terms_of(KdRecipe(recipe="kd")), 3, 10)


def test_names_are_unique() -> None:
    assert named({"kind": "ce"}, {"kind": "kl"}) == ["ce", "kl"]
    assert named({"kind": "kl"}, {"kind": "kl", "target": "mlm"}) == ["kl_teacher", "kl_mlm"]
    assert named({"kind": "kl"}, {"kind": "kl"}) == ["kl_teacher", "kl_teacher_2"]
    assert named({"kind": "kl", "name": "soft"}, {"kind": "kl"}) == ["soft", "kl"]
    assert named({"kind": "kl"}, {"kind": "js", "name": "kl"}) == ["kl_teacher", "kl"]
    assert named({"kind": "ce"}, {"kind": "ce", "label_smoothing": 0.1}) == ["ce", "ce_2"]


def test_two_terms_given_one_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"objective\.terms: 2 terms are named `soft`"):
        named({"kind": "kl", "name": "soft"}, {"kind": "js", "name": "soft"})


def test_numbers_follow_their_schedules() -> None:
    fade = ScheduleConfig(start=1.0, end=0.0, until=0.5)
    cool = ScheduleConfig(start=4.0, end=2.0)
    terms = terms_of(KdRecipe(recipe="kd", lambda_kl=fade, temperature=cool))
    _, kl = resolve_terms(terms, 1, 4)
    assert (kl.weight, kl.student_temperature, kl.target_temperature) == (0.5, 3.5, 3.5)


def test_a_term_of_weight_zero_is_left_out_and_its_target_not_needed() -> None:
    fade = ScheduleConfig(start=1.0, end=0.0, until=0.5)
    terms = terms_of(KdRecipe(recipe="kd", lambda_kl=fade))
    assert targets_needed(resolve_terms(terms, 0, 4)) == {"teacher"}
    assert [term.name for term in resolve_terms(terms, 2, 4)] == ["ce"]
    assert targets_needed(resolve_terms(terms, 2, 4)) == set()
