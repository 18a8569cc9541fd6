"""Divergences and other terms of an objective, one file each."""

from raykd.parts.terms import ce, hidden_states, js, kl, reverse_kl
from raykd.parts.terms.term import TERMS_ROOM as ROOM

PARTS = (ce, kl, reverse_kl, js, hidden_states)
"""Files whose parts are known, in the order of the documents."""

__all__ = ["PARTS", "ROOM"]
