"""An objective written out."""

from typing import Any, Literal

from pydantic import Field, model_validator

from raykd.parts.contexts.context import Context
from raykd.parts.contexts.gold import Gold
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.targets.target import Target
from raykd.parts.terms.term import Term
from raykd.parts.updates.update import Update


class TermsRecipe(Recipe):
    """An objective written out term by term; `recipe` may be left out."""

    recipe: Literal["terms"] = "terms"
    terms: tuple[Term, ...] = Field(min_length=1)
    """What is summed."""
    targets: dict[str, Target] = {}  # noqa: RUF012 (pydantic copies defaults)
    """What terms are measured against beside the `teacher`, by name. `mlm: FOLDER` is short for a masked language model."""
    context: Context = Gold()
    """What the decoder reads."""
    updates: tuple[Update, ...] = ()
    """What else changes while the student trains, beside what belongs to targets."""

    @model_validator(mode="before")
    @classmethod
    def _mlm_is_a_target(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "mlm" not in value:
            return value
        others = {key: item for key, item in value.items() if key != "mlm"}
        model = value["mlm"]
        if model is None:
            return others
        section = {"kind": "mlm", **(model if isinstance(model, dict) else {"model": model})}
        return {**others, "targets": {"mlm": section, **(others.get("targets") or {})}}

    def method(self) -> Method:
        """The parts as they are written."""
        return Method(self.terms, self.targets, self.context, updates=self.updates)
