"""The parts of a method at work on one worker: which are built, run, told of updates, saved and freed, and when."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.contexts.context import LiveContext
from raykd.parts.inputs.input import LiveInput
from raykd.parts.outputs import Outputs
from raykd.parts.part import Live
from raykd.parts.recipes.recipe import Method
from raykd.parts.targets.target import LiveTarget
from raykd.parts.terms.term import STUDENT, Term, TokenTerm
from raykd.parts.timing import part
from raykd.parts.worker import Worker
from raykd.training.objective import ActiveTerm
from raykd.training.step import wanted_by

Gradient = Callable[[Any, Sequence[ActiveTerm], Clock], Tensor]


class LiveMethod:
    """A method on a worker. Parts that nothing asks for from `start` on are not built."""

    def __init__(self, method: Method, on: Worker, start: Clock) -> None:
        self._method = method
        self._live: dict[str, Live] = {}
        """By the part's place in the method, such as `targets.teacher`."""
        for name in self._needed_from(start):
            self._live[f"targets.{name}"] = method.targets[name].build(on)
        for term in method.terms:
            self._built(f"terms.{term.name}", term.build(on))
        self._built("context", method.context.build(on))
        for number, one in enumerate(method.inputs):
            self._built(f"inputs.{number}", one.build(on))
        for number, update in enumerate(method.updates):
            self._built(f"updates.{number}", update.build(on))
        for term in method.terms:
            self._require_learning(term)
        self.target_passes = 0
        """Utterances that targets were run on, on this worker: two targets on one utterance are two. What is only made of other
        targets' answers does not count."""
        self._inputs = [live for live in self._live.values() if isinstance(live, LiveInput)]

    def _built(self, place: str, live: Live | None) -> None:
        if live is not None:
            self._live[place] = live

    def _require_learning(self, term: Term) -> None:
        of = term.of if isinstance(term, TokenTerm) else STUDENT
        place = f"targets.{of}"
        if of != STUDENT and place in self._live and self._live[place].learner is None:
            raise UserError(
                f"objective.terms: {term.name} teaches `{of}`, which does not learn; take a target of kind learning"
            )

    def _needed_from(self, clock: Clock) -> list[str]:
        """Targets that some term asks for now or later."""
        return self._method.needed(term for term in self._method.terms if not clock.stays_zero(term.weight))

    def learners(self) -> dict[str, nn.Module]:
        """What parts train beside the student, by place."""
        return {place: live.learner for place, live in self._live.items() if live.learner is not None}

    def heads(self) -> list[nn.Parameter]:
        """Output heads of targets that train them."""
        heads = [live.head_VD for live in self._live.values() if isinstance(live, LiveTarget)]
        return [head_VD for head_VD in heads if isinstance(head_VD, nn.Parameter) and head_VD.requires_grad]

    @property
    def reads_student(self) -> bool:
        """Whether a part may read the student's weights or run it outside of the step (`WhisperLearner.current`)."""
        return any(
            not isinstance(live, LiveTarget) or type(live).after_update is not Live.after_update for live in self._live.values()
        )

    def active(self, clock: Clock) -> list[ActiveTerm]:
        """The terms that are computed at a step, in order. One whose weight is 0 is not and has no metric."""
        weighed = [(term, clock.at(term.weight)) for term in self._method.terms]
        return [
            ActiveTerm(term, 0.0 if term.only_measured else weight, live=self._live.get(f"terms.{term.name}"))
            for term, weight in weighed
            if weight != 0
        ]

    def prepared(self, batch: Any, terms: Sequence[ActiveTerm], clock: Clock, gradient: Gradient) -> Any:
        """The micro-batch as student and targets get it: with its context, then its inputs; all parts have seen it."""
        context = self._live.get("context")
        if isinstance(context, LiveContext):
            batch = context.apply(batch, clock)
        for live in self._inputs:
            batch = live.apply(batch, lambda changed: gradient(changed, terms, clock), clock)
        for each in self._live.values():
            each.before_step(batch, clock)
        return batch

    @contextmanager
    def targets(self, batch: Any, terms: Sequence[ActiveTerm]) -> Iterator[dict[str, Outputs]]:
        """What the targets say that these terms are measured against; readable while the context lasts."""
        said: dict[str, Outputs] = {}
        wanted = wanted_by(terms)
        with ExitStack() as stack:
            for name in self._method.needed(active.term for active in terms):
                live = self._live[f"targets.{name}"]
                assert isinstance(live, LiveTarget)
                with part("teacher decoder"):
                    said[name] = live.outputs(batch, wanted, said)
                self.target_passes += len(batch.ids) if live.runs_a_model else 0
                stack.enter_context(live.at_hand())
            yield said

    def before_update(self, gradient_of: Callable[[nn.Parameter], Tensor | None], clock: Clock) -> None:
        """Tell every part that the gradients of a global batch are there."""
        for live in self._live.values():
            live.before_update(gradient_of, clock)

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        """Tell every part of an optimiser step."""
        for live in self._live.values():
            live.after_update(clock, means)

    def free_unneeded(self, clock: Clock) -> list[str]:
        """Let go of the targets that no term asks for any more; their names."""
        needed = {f"targets.{name}" for name in self._needed_from(clock)}
        over = [place for place, live in self._live.items() if isinstance(live, LiveTarget) and place not in needed]
        for place in over:
            del self._live[place]
        return [place.removeprefix("targets.") for place in over]

    def state(self) -> dict[str, Tensor]:
        """The state of all parts, by place and name."""
        return {f"{place}/{name}": tensor for place, live in self._live.items() for name, tensor in live.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            UserError: another part had this state, or a part has no state in it.
        """
        strangers = sorted(name for name in state if not name.startswith(("targets.", *(f"{place}/" for place in self._live))))
        if strangers:  # a target's state may be left over: none is built that nothing asks for any more
            raise UserError(f"the checkpoint has the state of parts that are gone ({', '.join(strangers)}); start a new run")
        for place, live in self._live.items():
            own = {name.removeprefix(f"{place}/"): value for name, value in state.items() if name.startswith(f"{place}/")}
            expected = live.state()
            if own.keys() != expected.keys():
                differ = ", ".join(sorted(own.keys() ^ expected.keys()))
                raise UserError(
                    f"the checkpoint's state of {place} is another part's ({differ}); start a new run without --resume"
                )
            if own:
                live.restore(own)
