"""Methods, one file each. A method's file may also hold the parts that it alone brings."""

from raykd.parts.recipes import akd, askd, ce, distilwhisper, dr_kd, imitkd, kd, mlm_kd, terms
from raykd.parts.recipes.recipe import RECIPES_ROOM as ROOM

PARTS = (
    kd,
    mlm_kd,
    askd,
    distilwhisper,
    dr_kd,
    imitkd,
    akd,
    ce,
    terms,
)

__all__ = ["PARTS", "ROOM"]
