"""What every part of a method is: a config section that can build what works on a training worker.

A *room* is a list of parts of one kind: terms, targets, recipes, contexts, inputs, students, updates. A config names a part by
the room's tag (`kind: kl`, `recipe: kd`). Whatever else raykd needs to know of a part, the part says itself.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, PydanticKnownError, core_schema
from torch import Tensor, nn

from raykd.config.base import Section, branch
from raykd.parts.clock import Clock

if TYPE_CHECKING:
    from raykd.parts.worker import Worker


class Room:
    """The parts of one kind, by the name that a config gives them."""

    def __init__(self, name: str, tag: str = "kind") -> None:
        self.name, self.tag = name, tag
        self.base: type[Part] | None = None
        self.parts: dict[str, type[Part]] = {}

    def add(self, part: "type[Part]") -> None:
        """Let configs name a part; one that was read from the same file before is replaced.

        Raises:
            ValueError: it has no name, or another part has it.
        """
        field = part.model_fields.get(self.tag)
        names = get_args(field.annotation) if field else ()
        if len(names) != 1 or not isinstance(names[0], str):
            raise ValueError(f'{part.__name__}: a part of {self.name} needs a name: {self.tag}: Literal["name"] = "name"')
        known = self.parts.get(names[0])
        if known is not None and file_of(known) != file_of(part):
            raise ValueError(f"{part.__name__}: {self.name} has a part named {names[0]} already, in {file_of(known)}")
        self.parts[names[0]] = part

    def read(self, value: Any) -> "Part":
        """The part that a section of a config stands for. A string stands for a section with nothing but the tag.

        Raises:
            ValidationError: as pydantic's of a union of all parts of the room.
        """
        from raykd.parts import rooms  # noqa: F401 (fills the rooms)

        assert self.base is not None
        if isinstance(value, self.base):
            return value
        if isinstance(value, str):
            value = {self.tag: value}
        if not isinstance(value, Mapping):
            raise PydanticKnownError("model_attributes_type")
        value = self.base.written_out(dict(value))
        if self.tag not in value:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": f"'{self.tag}'"})
        name = str(value[self.tag])
        if name not in self.parts:
            names = ", ".join(f"'{known}'" for known in self.parts)
            context = {"discriminator": f"'{self.tag}'", "tag": name, "expected_tags": names}
            raise PydanticKnownError("union_tag_invalid", context)
        try:
            return self.parts[name].model_validate(value)
        except ValidationError as error:
            raise _below(name, error) from None


class Part(Section):
    """A part of a method: its config section, and what it builds on each training worker.

    A class that derives from a room's base class (`Term`, `Target`, `Recipe`, `Context`, `Input`, `Student`, `Update`) and has
    a name of its own is a part of that room, whether its file is listed by a room, named with `--parts` or installed.
    """

    room: ClassVar[Room]

    def __init_subclass__(cls, **options: Any) -> None:
        """A class that brings a room is the room's base class."""
        if "room" in cls.__dict__:
            cls.room.base = cls
        super().__init_subclass__(**options)

    def build(self, on: "Worker") -> "Live | None":
        """What works on a training worker; None where the section is all there is to it. Called before the first step."""
        return None

    @classmethod
    def written_out(cls, section: dict[str, Any]) -> dict[str, Any]:
        """The full form of a section that may be in a short one. Asked of a room's base class."""
        return section

    @classmethod
    def choices(cls) -> tuple[type[Section], ...]:
        """Itself, or for a room's base class every part of the room."""
        return tuple(cls.room.parts.values()) if cls.room.base is cls else (cls,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A room's base class stands for any part of the room, as they are known when a config is read."""
        if "room" in cls.__dict__:
            return core_schema.no_info_plain_validator_function(cls.room.read)
        return handler(source)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A part from a file travels with the file's text: the other process may not have the file."""
        from raykd.parts.outside import travelling

        return travelling(self) or super().__reduce_ex__(protocol)


class Live:
    """What a part builds on a worker. All of it is the same on every worker, so that a checkpoint can be written by any."""

    learner: nn.Module | None = None
    """What trains beside the student, such as a projection: in the same optimiser, checkpoint and learning rate."""

    def before_step(self, batch: Any, clock: Clock) -> None:
        """A micro-batch is ready, and neither targets nor student have been run on it. What is found out about it for others
        belongs into `batch.memo`.
        """

    def before_update(self, gradient_of: Callable[[nn.Parameter], Tensor | None], clock: Clock) -> None:
        """The gradients of the global batch are there and no parameter has changed yet.

        `gradient_of` gives a trained parameter's, whole; None: it got none. Both are collective: called on all workers, in the
        same order.
        """

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        """An optimiser step was made. `means`: of each term over its tokens of the global batch, equal on all workers.

        Collective: called on all workers, also where the update was left out because a gradient was not finite.
        """

    def state(self) -> dict[str, Tensor]:
        """What must be as it was when training goes on: whole tensors by name. Saved in checkpoints."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, on the CPU."""


def file_of(part: type[Part]) -> str:
    """Where a part was read from."""
    import sys

    return getattr(sys.modules.get(part.__module__), "__file__", None) or part.__module__


_KNOWN_ERRORS = set(get_args(core_schema.ErrorType))


def _below(name: str, error: ValidationError) -> ValidationError:
    """The same mistakes with the part's name in front of their places, as pydantic has it of a union's branches."""
    details = []
    for item in error.errors(include_url=False):
        kind, context = item["type"], item.get("ctx", {})
        known = kind in _KNOWN_ERRORS
        details.append(
            InitErrorDetails(
                type=kind if known else PydanticCustomError(kind, "{message}", {"message": item["msg"]}),
                loc=(branch(name), *item["loc"]),
                input=item["input"],
                ctx=context,
            )
        )
    return ValidationError.from_exception_data(error.title, details)
