"""The student as its own teacher: a copy of it that follows by averaging, by snapshots, or an epoch behind.

What the sources leave open and is ours is named at each class. Whoever follows from the start is, until its first update, the
student as it was before training; give its term a weight that begins later where that teaches nothing.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.config.schedule import ScheduleConfig
from raykd.data.batches import Batch
from raykd.errors import UserError
from raykd.parts.clock import Clock
from raykd.parts.distribution import HeadDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.part import Live
from raykd.parts.targets.target import LiveTarget, Target
from raykd.parts.updates.update import Update

if TYPE_CHECKING:
    from raykd.parts.worker import Worker

_BEST = "best_dev_loss"


class Follower(Live):
    """A frozen copy of the student that changes after updates. Its weights are its state."""

    def __init__(self, on: "Worker") -> None:
        self._student = on.student
        self.model: Any = copy.deepcopy(on.student).requires_grad_(False).eval().to(on.device)
        trained = {name for name, parameter in on.student.named_parameters() if parameter.requires_grad}
        kept = self.model.state_dict().keys()
        self._weights = {name: parameter for name, parameter in self.model.named_parameters() if name in trained}
        self._buffers = {name: buffer for name, buffer in self.model.named_buffers() if name in kept}

    @torch.no_grad()
    def follow(self, share: float = 1.0) -> None:
        """Go so far from the copy's weights to the student's. Collective under ZeRO 3."""
        theirs = dict(self._student.current().named_parameters())
        for name, weight in self._weights.items():
            weight.lerp_(theirs[name].detach().to(weight.dtype), share)
        for mine, current in zip(self.model.buffers(), self._student.buffers(), strict=True):
            mine.copy_(current)

    def heard(self) -> Any:
        """The copy, hearing with the student's frozen encoder where there is one."""
        self.model.frozen_encoder = self._student.frozen_encoder
        return self.model

    def state(self) -> dict[str, Tensor]:
        """The weights that the student trains, and its buffers."""
        return {name: tensor.detach() for name, tensor in (self._weights | self._buffers).items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take them back."""
        for name, tensor in (self._weights | self._buffers).items():
            tensor.copy_(state[name])


class Ema(Update):
    """An exponential moving average of the student's weights (mean teacher, Tarvainen and Valpola 2017, arXiv 1703.01780).

    weights = decay · weights + (1 - decay) · student's, after every step. The default decay is ours.
    """

    kind: Literal["ema"] = "ema"
    decay: Annotated[float, Field(ge=0, le=1)] | ScheduleConfig = 0.999
    """A number from 0 to 1, or a schedule of one: small at first lets go of the untrained student sooner."""

    def build(self, on: "Worker") -> Follower:
        """The average."""
        return _Average(on, self)


class _Average(Follower):
    def __init__(self, on: "Worker", config: Ema) -> None:
        super().__init__(on)
        self._decay = config.decay

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        self.follow(1 - clock.at(self._decay))


class PreviousEpoch(Update):
    """The student as it was at the end of the epoch before (PS-KD, Kim et al. 2021, arXiv 2006.12000)."""

    kind: Literal["previous_epoch"] = "previous_epoch"

    def build(self, on: "Worker") -> Follower:
        """A snapshot of every epoch."""
        return _Snapshots(on, Snapshot(at=0.0, every_epochs=1))


class Snapshot(Update):
    """The student as it was at some time; a snapshot between two phases is one reading of FastWhisper (ours).

    `choose: best` measures the loss on dev at the end of every epoch up to `at`, and keeps the weights with the lowest.
    """

    kind: Literal["snapshot"] = "snapshot"
    choose: Literal["last", "best"] = "last"
    """Which one is kept when it is taken: the newest, or the one of the lowest loss on dev (gold text, up to 256
    utterances)."""
    at: float = Field(0.6, ge=0, lt=1)
    """Share of training after which it is taken."""
    every_epochs: int | None = Field(None, ge=1)
    """From then on it is taken again so often; None: it stays."""

    def build(self, on: "Worker") -> Follower:
        """The snapshot."""
        return _Snapshots(on, self)


class _Snapshots(Follower):
    def __init__(self, on: "Worker", config: Snapshot) -> None:
        super().__init__(on)
        self._config, self._dev_loss = config, on.dev_loss
        self._best = torch.tensor(float("inf"), dtype=torch.float64)

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        first, done = round(self._config.at * clock.steps), clock.step + 1
        every = self._config.every_epochs
        taken = done == first
        taken |= every is not None and done > first and clock.ends_epoch and (clock.epoch + 1) % every == 0
        if self._config.choose == "best" and (taken or (done < first and clock.ends_epoch)):
            self._follow_if_better()
        elif self._config.choose == "last" and taken:
            self.follow()

    def _follow_if_better(self) -> None:
        loss = self._dev_loss(self._student.current())
        if loss < self._best:
            self._best.fill_(loss)
            self.follow()

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), _BEST: self._best}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._best.copy_(state[_BEST])
        super().restore(state)


class SelfTeacher(Target):
    """The distribution of a copy of the student. It hears and reads what the student hears and reads, without dropout."""

    kind: Literal["self"] = "self"
    update: Update = Ema()
    """How the copy follows: `ema`, `snapshot` or `previous_epoch`."""

    def build(self, on: "Worker") -> "LiveSelfTeacher":
        """The copy, made now.

        Raises:
            UserError: the update does not make a copy of the student.
        """
        follower = self.update.build(on)
        if not isinstance(follower, Follower):
            raise UserError(f"objective.targets: update {self.update.kind} gives no copy of the student; take ema or snapshot")
        return LiveSelfTeacher(follower)


class LiveSelfTeacher(LiveTarget):
    """A follower as a target."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    @torch.no_grad()
    def outputs(self, batch: Batch, wanted: frozenset[str], others: Mapping[str, Outputs]) -> Outputs:
        """See `LiveTarget`."""
        model = self._follower.heard()
        hidden_ND, auxiliary = model(batch, wanted)
        return Outputs(HeadDistribution(hidden_ND, model.head_VD), auxiliary, hidden_ND)

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        """As the update says."""
        self._follower.after_update(clock, means)

    def state(self) -> dict[str, Tensor]:
        """The copy's."""
        return self._follower.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The copy's."""
        self._follower.restore(state)
