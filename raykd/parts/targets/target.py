"""Targets: token distributions that the student is measured against."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from raykd.data.batches import Batch, BatchReader
from raykd.data.corpus import Corpus
from raykd.data.format import SpeechFormat
from raykd.parts.outputs import Outputs
from raykd.parts.part import Live, Part, Room

if TYPE_CHECKING:
    from raykd.parts.recipes.recipe import Method
    from raykd.parts.worker import Worker

TARGETS_ROOM = Room("targets")
TEACHER = "teacher"
"""Name of the target that the config's `teacher` section is."""


class Target(Part):
    """A distribution over the next token at every valid position of a batch. Teacher and student see the same decoder input."""

    room: ClassVar = TARGETS_ROOM
    kind: str

    def made_from(self) -> tuple[str, ...]:
        """Names of other targets that it is made from."""
        return ()

    def check(self, ready: "Ready") -> None:
        """Look whether it can teach this, before the workers start.

        Raises:
            UserError: it cannot.
        """

    def reader(self) -> BatchReader | None:
        """Reads what it wants beside the utterances of every batch (`Batch.kept`); None: it wants nothing."""
        return None

    @abstractmethod
    def build(self, on: "Worker") -> "LiveTarget":
        """The target on a worker's device. Not called when no term will ever ask for it."""


@dataclass(frozen=True)
class Ready:
    """What is known of a run before its workers start."""

    method: "Method"
    corpus: Corpus
    speech_format: SpeechFormat
    seed: int
    teacher_hash: str
    """Of the weights of the config's teacher."""
    encoder_hash: str
    """Of the weights of its encoder."""
    kept_tokens: tuple[int, ...] | None = None
    """Of each of the student's tokens, its id in the teacher's vocabulary; None: they speak the same."""


class LiveTarget(Live):
    """A target at work. It is run only for steps at which a term of a weight above 0 asks for it.

    One with a `learner` learns, if there are terms `of` it: its `hidden_ND` then have their graph.
    """

    head_VD: Tensor | None = None
    """The output head of one that learns."""
    runs_a_model: ClassVar[bool] = True
    """Whether each batch costs a pass of a model."""

    @abstractmethod
    def outputs(self, batch: Batch, wanted: frozenset[str], others: Mapping[str, Outputs]) -> Outputs:
        """What the target says about a micro-batch; constants, but for `hidden_ND` of one that learns.

        `wanted` names what terms need beside the distribution. `others`: of the targets that it is made from.
        """

    def at_hand(self) -> AbstractContextManager[None]:
        """A context in which the distribution can be read, where that takes communication."""
        return nullcontext()
