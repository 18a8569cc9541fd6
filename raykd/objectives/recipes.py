"""From the objective in a config to its terms, and from terms to their weights and temperatures at a step."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from raykd.config.objective import PUBLISHED_VOCABULARY, CeRecipe, KdRecipe, MlmKdRecipe, ObjectiveConfig, TermConfig
from raykd.errors import UserError
from raykd.objectives.schedules import value_at


def terms_of(objective: ObjectiveConfig) -> tuple[TermConfig, ...]:
    """The terms of an objective, each with a name of its own.

    An unnamed term is called by its kind (`kl`); where two would clash, by kind and target (`kl_teacher`, `kl_self`), and where
    these clash too, numbered (`kl_teacher`, `kl_teacher_2`).

    Raises:
        UserError: two terms were given the same name.
    """
    return _named(_terms(objective))


def _terms(objective: ObjectiveConfig) -> tuple[TermConfig, ...]:
    if isinstance(objective, CeRecipe):
        return (TermConfig(kind="ce", label_smoothing=objective.label_smoothing),)
    if isinstance(objective, KdRecipe):
        return (
            TermConfig(kind="ce", weight=objective.lambda_ce, label_smoothing=objective.label_smoothing),
            TermConfig(
                kind="kl",
                weight=objective.lambda_kl,
                student_temperature=objective.temperature,
                target_temperature=objective.temperature,
            ),
        )
    if isinstance(objective, MlmKdRecipe):
        return _mlm_kd(objective)
    return objective.terms


def _mlm_kd(recipe: MlmKdRecipe) -> tuple[TermConfig, ...]:
    """The weights of both presets, as `MlmKdRecipe` derives them."""
    temperature = recipe.student_temperature or (2.0 if recipe.preset == "code" else 1.0)
    weight_ce, weight_kl = recipe.lambda_lm, 1 - recipe.lambda_lm
    if recipe.preset == "code":
        assert isinstance(temperature, float)
        # The term itself is multiplied by the temperature's square, so that is in the sum but not in the weight.
        weight_kl /= PUBLISHED_VOCABULARY
        total = weight_ce + weight_kl * temperature**2
        weight_ce, weight_kl = weight_ce / total, weight_kl / total
    return (
        TermConfig(kind="ce", weight=weight_ce, label_smoothing=recipe.label_smoothing),
        TermConfig(
            kind="kl",
            target="mlm",
            weight=weight_kl,
            student_temperature=temperature,
            target_temperature=recipe.mlm_temperature,
        ),
    )


def _named(terms: tuple[TermConfig, ...]) -> tuple[TermConfig, ...]:
    taken = Counter(term.name for term in terms if term.name)
    for name, count in taken.items():
        if count > 1:
            raise UserError(f"objective.terms: {count} terms are named `{name}`; give each a `name` of its own")
    kinds = Counter(term.kind for term in terms if not term.name)
    named = []
    for term in terms:
        if not term.name:
            clash = kinds[term.kind] > 1 or term.kind in taken
            name = _free(f"{term.kind}_{term.target}" if clash and term.kind != "ce" else term.kind, taken)
            taken[name] = 1
            term = term.model_copy(update={"name": name})
        named.append(term)
    return tuple(named)


def _free(name: str, taken: Iterable[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


@dataclass(frozen=True)
class ResolvedTerm:
    """A term with its numbers at one step; fields as in `TermConfig`."""

    name: str
    kind: Literal["ce", "kl", "reverse_kl", "js"]
    weight: float = 1.0
    target: str = "teacher"
    student_temperature: float = 1.0
    target_temperature: float = 1.0
    scale_by_temperature: bool = True
    label_smoothing: float = 0.0
    mix: float = 0.5

    @property
    def scale(self) -> float:
        """What the divergence is multiplied by: the student temperature squared, or 1."""
        return self.student_temperature**2 if self.scale_by_temperature else 1.0


def resolve_terms(terms: Iterable[TermConfig], step: int, total_steps: int) -> list[ResolvedTerm]:
    """The terms that count at a step, in order. A term whose weight is 0 is left out: it is not computed and has no metric."""
    resolved = []
    for term in terms:
        weight = value_at(term.weight, step, total_steps)
        if weight == 0:
            continue
        resolved.append(
            ResolvedTerm(
                name=term.name or term.kind,
                kind=term.kind,
                weight=weight,
                target=term.target,
                student_temperature=value_at(term.student_temperature, step, total_steps),
                target_temperature=value_at(term.target_temperature, step, total_steps),
                scale_by_temperature=term.scale_by_temperature,
                label_smoothing=term.label_smoothing,
                mix=term.mix,
            )
        )
    return resolved


def targets_needed(resolved: Iterable[ResolvedTerm]) -> set[str]:
    """Names of the targets that the terms are measured against; a teacher that is not among them need not run."""
    return {term.target for term in resolved if term.kind != "ce"}
