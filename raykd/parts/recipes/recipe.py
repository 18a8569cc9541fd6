"""Recipes: a method under its paper's names, and the parts it stands for."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from raykd.errors import UserError
from raykd.parts.contexts.context import Context
from raykd.parts.contexts.gold import Gold
from raykd.parts.inputs.input import Input
from raykd.parts.part import Part, Room
from raykd.parts.targets.target import Target
from raykd.parts.terms.term import Term
from raykd.parts.updates.update import Update

RECIPES_ROOM = Room("recipes", tag="recipe")


@dataclass(frozen=True)
class Method:
    """All that a recipe stands for."""

    terms: tuple[Term, ...]
    targets: Mapping[str, Target] = field(default_factory=dict)
    """By name; `teacher` is there by itself where the config has a teacher."""
    context: Context = field(default_factory=Gold)
    inputs: tuple[Input, ...] = ()
    """In turn, after the config's own `inputs`."""
    updates: tuple[Update, ...] = ()
    """Beside those that belong to targets."""

    @property
    def settled(self) -> float:
        """Share of training after which the student has its final form."""
        return max((update.settled for update in self.updates), default=0.0)

    def needed(self, terms: Iterable[Term]) -> list[str]:
        """Names of the targets that these terms are measured against, each after those that it is made from.

        Raises:
            KeyError: a target that there is not, by its name.
        """
        found: dict[str, None] = {}

        def visit(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                raise UserError(f"objective.targets: {' -> '.join((*above, name))}: a target cannot be made from itself")
            for other in self.targets[name].made_from():
                visit(other, (*above, name))
            found[name] = None

        for term in terms:
            for name in term.runs():
                visit(name, ())
        return list(found)


class Recipe(Part):
    """A method. Its fields have the paper's names; its docstring says where the formula is from and which choices are ours."""

    room: ClassVar = RECIPES_ROOM
    recipe: str

    @abstractmethod
    def method(self) -> Method:
        """Terms, targets and whatever else the recipe stands for."""

    def taught_by(self, teacher: Target) -> Target:
        """The config's teacher as the method wants it.

        Raises:
            UserError: it cannot be that.
        """
        return teacher

    @classmethod
    def written_out(cls, section: dict[str, Any]) -> dict[str, Any]:
        """`{terms: [...]}` is short for `{recipe: terms, terms: [...]}`."""
        return {"recipe": "terms", **section} if "terms" in section else section


def named(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The terms, each with a name of its own.

    An unnamed term is called by its kind (`kl`); where two would clash, by kind and target (`kl_teacher`, `kl_self`), and where
    these clash too, numbered (`kl_teacher`, `kl_teacher_2`).

    Raises:
        UserError: two terms were given the same name.
    """
    terms = tuple(terms)
    taken = Counter(term.name for term in terms if term.name)
    for name, count in taken.items():
        if count > 1:
            raise UserError(f"objective.terms: {count} terms are named `{name}`; give each a `name` of its own")
    kinds = Counter(term.kind for term in terms if not term.name)
    result = []
    for term in terms:
        if not term.name:
            clash = kinds[term.kind] > 1 or term.kind in taken
            name = _free("_".join((term.kind, *term.targets())) if clash else term.kind, taken)
            taken[name] = 1
            term = term.model_copy(update={"name": name})
        result.append(term)
    return tuple(result)


def _free(name: str, taken: Iterable[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
