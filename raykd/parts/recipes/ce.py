"""Learning from labels alone."""

from typing import Literal

from pydantic import Field

from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.terms.ce import Ce


class CeRecipe(Recipe):
    """Cross-entropy on the transcripts alone: fine-tuning, or training from scratch. Needs no teacher."""

    recipe: Literal["ce"] = "ce"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Mass spread evenly over the vocabulary."""

    def method(self) -> Method:
        """One term."""
        return Method(terms=(Ce(label_smoothing=self.label_smoothing),))
