"""Methods, one file each. A method's file may also hold the parts that it alone brings."""

from raykd.parts.recipes import (
    akd,
    askd,
    cdd,
    ce,
    distilwhisper,
    dr_kd,
    homodistil,
    imitkd,
    kd,
    mlm_kd,
    okd,
    real_time,
    rl_kd,
    terms,
)
from raykd.parts.recipes.recipe import RECIPES_ROOM as ROOM

PARTS = (
    kd,
    mlm_kd,
    askd,
    distilwhisper,
    dr_kd,
    imitkd,
    akd,
    okd,
    real_time,
    homodistil,
    cdd,
    rl_kd,
    ce,
    terms,
)

__all__ = ["PARTS", "ROOM"]
