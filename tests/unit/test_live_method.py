"""A method at work: which parts are built, run, told of updates, saved and freed, and when."""

import weakref
from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from raykd.config.schedule import ScheduleConfig
from raykd.data.batches import Batch
from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.contexts.context import Context, LiveContext
from raykd.parts.inputs.input import Input, LiveInput, LossGradient
from raykd.parts.outputs import HIDDEN_STATES, Outputs
from raykd.parts.part import Live
from raykd.parts.recipes.recipe import Method
from raykd.parts.students.learner import Learner
from raykd.parts.targets.target import Target
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import OutputTerm
from raykd.parts.updates.update import Update
from raykd.parts.worker import Worker
from raykd.training.step import Step
from tests.terms import NOW, LiveNoted, Noted, at_work, labelled

BATCH = labelled(torch.tensor([1, 2]))


class Projected(OutputTerm):
    """Distance after a projection that trains."""

    kind: Literal["projected"] = "projected"
    needs = frozenset({HIDDEN_STATES})
    width: int = 3

    def build(self, on: Worker) -> Live:
        live = Live()
        live.learner = nn.Linear(2, self.width, bias=False)
        return live

    def total(self, student: Outputs, targets: Mapping[str, Outputs], batch: Batch, clock: Clock, live: Live | None) -> Tensor:
        assert live is not None
        assert live.learner is not None
        return live.learner(student.auxiliary[HIDDEN_STATES]).square().sum()


class Count(Update):
    """Counts updates."""

    kind: Literal["count"] = "count"
    names: tuple[str, ...] = ("count",)

    def build(self, on: Worker) -> "LiveCount":
        return LiveCount(self.names)


class LiveCount(Live):
    """As many numbers as it has names."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.numbers = {name: torch.zeros(1) for name in names}
        self.means: list[dict[str, float]] = []

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        self.means.append(dict(means))
        for number in self.numbers.values():
            number += 1

    def state(self) -> dict[str, Tensor]:
        return self.numbers

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.numbers = {name: value.clone() for name, value in state.items()}


class Mirror(Target):
    """A target made from another."""

    kind: Literal["mirror"] = "mirror"
    of: str = "teacher"

    def made_from(self) -> tuple[str, ...]:
        return (self.of,)

    def build(self, on: Worker) -> LiveNoted:
        return LiveNoted()


class Shouted(Input):
    """Louder by the gradient."""

    kind: Literal["shouted"] = "shouted"
    by: float = 1.0

    def build(self, on: Worker) -> "LiveShouted":
        return LiveShouted(self.by)


class LiveShouted(LiveInput):
    def __init__(self, by: float) -> None:
        self.by = by

    def apply(self, batch: Batch, loss_gradient: LossGradient, clock: Clock) -> Batch:
        return batch.changed(mel_BMF=batch.mel_BMF * self.by + loss_gradient(batch))


class Swapped(Context):
    """Says that the student has said it."""

    kind: Literal["swapped"] = "swapped"

    def build(self, on: Worker) -> "LiveSwapped":
        return LiveSwapped()


class LiveSwapped(LiveContext):
    def apply(self, batch: Batch, clock: Clock) -> Batch:
        return batch.changed(sampled_B=torch.ones(len(batch.labels_BU), dtype=torch.bool))


def live_of(method: Any, name: str) -> Any:
    return method._live[name]


def test_a_target_is_built_only_when_a_term_will_ask_for_it() -> None:
    terms = (Ce(), Kl(weight=ScheduleConfig(start=0, end=1)), Kl(target="never", weight=0.0))
    live = at_work(Method(terms, {"never": Noted()}), Clock(0, 10))
    assert list(live._live) == ["targets.teacher"]
    faded = (Ce(), Kl(weight=ScheduleConfig(kind="step", start=1, end=0, begin=0.5)))
    assert list(at_work(Method(faded), Clock(5, 10))._live) == []


def test_a_target_that_stays_at_weight_zero_is_freed_once_and_others_stay() -> None:
    fading = Kl(target="early", weight=ScheduleConfig(start=1, end=0, until=0.5))
    live = at_work(Method((Kl(), fading), {"early": Noted()}), Clock(0, 10))
    early, teacher = weakref.ref(live_of(live, "targets.early")), weakref.ref(live_of(live, "targets.teacher"))
    assert [live.free_unneeded(Clock(step, 10)) for step in (0, 4, 5, 6)] == [[], [], ["early"], []]
    assert early() is None, "nothing holds it"
    assert teacher() is not None
    with live.targets(BATCH, live.active(Clock(6, 10))) as said:
        assert list(said) == ["teacher"]


def test_a_target_is_run_after_what_it_is_made_from_and_both_stay_as_long_as_one_is_asked() -> None:
    fading = Kl(weight=ScheduleConfig(start=1, end=0, until=0.5))
    live = at_work(Method((fading, Kl(target="mirror")), {"mirror": Mirror()}), Clock(0, 10))
    assert live.free_unneeded(Clock(9, 10)) == []
    with live.targets(BATCH, live.active(Clock(9, 10))) as said:
        assert list(said) == ["teacher", "mirror"]
        assert said["mirror"].auxiliary == {"teacher": said["teacher"]}
    assert live_of(live, "targets.teacher").passes == 1


def test_targets_made_from_each_other_are_refused() -> None:
    targets = {"a": Mirror(of="b"), "b": Mirror(of="a")}
    with pytest.raises(UserError, match=r"^objective\.targets: a -> b -> a: a target cannot be made from itself$"):
        at_work(Method((Kl(target="a"),), targets))


def test_what_a_term_trains_is_a_learner_and_is_trained_with_the_student() -> None:
    live = at_work(Method((Ce(), Projected(), Projected(width=4))))
    learners = live.learners()
    assert {place: tuple(module.weight.shape) for place, module in learners.items() if isinstance(module, nn.Linear)} == {
        "terms.projected": (3, 2),
        "terms.projected_2": (4, 2),
    }
    learner = Learner()
    learner.head_VD = nn.Parameter(torch.zeros(5, 2))
    step = Step(learner, others=learners.values())
    assert {tuple(parameter.shape) for parameter in step.parameters()} == {(5, 2), (3, 2), (4, 2)}
    _, first, second = live.active(NOW)
    assert (first.live, second.live) == (live_of(live, "terms.projected"), live_of(live, "terms.projected_2"))


def test_a_batch_gets_its_context_then_its_inputs_in_turn() -> None:
    method = Method((Ce(),), context=Swapped(), inputs=(Shouted(by=3.0), Shouted(by=5.0)))
    live, seen = at_work(method), []

    def gradient(batch: Batch, terms: Any, clock: Clock) -> Tensor:
        seen.append((float(batch.mel_BMF), batch.sampled_B, [one.name for one in terms], clock))
        return torch.ones(1)

    changed = live.prepared(BATCH.changed(mel_BMF=torch.ones(1)), live.active(NOW), NOW, gradient)
    assert float(changed.mel_BMF) == (3 * 1 + 1) * 5 + 1
    assert [mel for mel, *_ in seen] == [1.0, 4.0]
    assert all(sampled_B is not None and names == ["ce"] and clock == NOW for _, sampled_B, names, clock in seen)


def test_every_part_is_told_of_an_update() -> None:
    live = at_work(Method((Ce(),), updates=(Count(), Count(names=("a", "b")))))
    live.after_update(NOW, {"ce": 2.0})
    assert live_of(live, "updates.0").means == [{"ce": 2.0}]
    assert {name: float(value) for name, value in live.state().items()} == {
        "updates.0/count": 1.0,
        "updates.1/a": 1.0,
        "updates.1/b": 1.0,
    }
    assert live.reads_student
    assert not at_work(Method((Kl(),))).reads_student


def test_the_state_is_restored_to_the_parts_that_had_it() -> None:
    method = Method((Ce(),), updates=(Count(), Count(names=("a", "b"))))
    live, again = at_work(method), at_work(method)
    live.after_update(NOW, {})
    again.restore(live.state())
    again.after_update(NOW, {})
    assert {float(value) for value in again.state().values()} == {2.0}


@pytest.mark.parametrize(
    ("updates", "place"),
    [
        ((Count(names=("other",)),), r"updates\.0 .*\(count, other\)"),
        ((Count(names=()),), r"updates\.0 .*\(count\)"),
        ((Count(), Count(names=("a",))), r"updates\.1 .*\(a\)"),
    ],
)
def test_the_state_of_other_parts_is_refused(updates: tuple[Update, ...], place: str) -> None:
    saved = at_work(Method((Ce(),), updates=(Count(),))).state()
    with pytest.raises(UserError, match=rf"the checkpoint's state of {place}.*start a new run without --resume"):
        at_work(Method((Ce(),), updates=updates)).restore(saved)


def test_the_state_of_a_part_that_is_gone_is_refused_unless_it_was_a_target_that_is_not_needed() -> None:
    bare = at_work(Method((Ce(),)))
    with pytest.raises(UserError, match=r"state of parts that are gone \(updates\.0/count\); start a new run$"):
        bare.restore(at_work(Method((Ce(),), updates=(Count(),))).state())
    bare.restore({"targets.self/weight": torch.zeros(1)})
