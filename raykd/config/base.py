"""The base of every config section: frozen, typed, and closed to unknown keys."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class Section(BaseModel):
    """A part of the config tree. Unknown keys and impossible values are refused with their path (`config.mistakes`)."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        str_min_length=1,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """Python counts True as 1; a user who writes `steps: true` made a mistake."""
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and key in cls.model_fields:
                types = set(types_in(cls.model_fields[key].annotation))
                if types & {int, float} and bool not in types:
                    raise wrong(f"must be a number (got {str(value).lower()})", key)
        return values


def types_in(annotation: Any) -> Iterator[Any]:
    """The plain types of an annotation, through unions, tuples and the like; a literal counts as its values' types."""
    if get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif parts := get_args(annotation):
        for part in parts:
            yield from types_in(part)
    else:
        yield annotation


def wrong(message: str, *keys: str | int) -> ValidationError:
    """To raise from a validator of a whole section: what is wrong with the value at `keys` below that section."""
    kind = PydanticCustomError("wrong", "{message}", {"message": message})
    return ValidationError.from_exception_data("config", [InitErrorDetails(type=kind, loc=keys, input=None)])
