"""The base of every config section: frozen, typed, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the config tree. Unknown keys and impossible values are refused with their path (`config.load`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())
