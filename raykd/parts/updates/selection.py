"""Who of several teachers teaches an utterance, and how that is learned.

Shapes: B utterances, S encoder positions, D width, K teachers, E = D + 1 numbers that describe an utterance.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from raykd.data.batches import Batch
from raykd.parts.clock import Clock
from raykd.parts.part import Live
from raykd.parts.students.learner import evaluating
from raykd.parts.updates.update import Update

if TYPE_CHECKING:
    from raykd.parts.worker import Worker

SELECTED = "selected_teachers"
"""Name, in `Batch.memo`, of what each teacher counts in each utterance: weight_B by the teacher's name."""
SHARE = "share_"
"""In front of a teacher's name: the metric that tells what part of the labels it explains."""


class Selection(Update):
    """Which of several teachers teach an utterance (Yuan et al. 2021, arXiv 2012.06048), or what they all count.

    `policy`, by reinforcement: each teacher is taken or left with probability sigmoid(W · utterance + b), and those that were
    taken count alike. After `warm_up`, W and b follow the policy gradient. Of the paper (its abstract, and aitsc/GLMKD
    `distill/multi_teacher_model.py`, which calls itself similar): the action for each teacher and instance, the warm-up with
    all teachers, the update one step late, by the reward of the step after. Ours: an utterance is described by the mean of the
    student's encoder states over the clip, at length 1, and no more. The paper adds what each teacher says of it and its
    cross-entropy, for which every teacher would have to be run; so those that nobody in a micro-batch takes are not run. Ours
    too: log pi (GLMKD takes pi itself) with the average reward of earlier steps as a baseline, plain gradient steps, and that
    an utterance may be left to the labels alone.

    `learned` (ours): all teachers, with weights on the labels' likelihood: each weight follows the share of the labels that its
    teacher explains (the step of expectation and maximisation for a mixture, taken a little at each step). `average`: all
    alike.
    """

    kind: Literal["selection"] = "selection"
    teachers: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of the targets."""
    choose: Literal["policy", "learned", "average"] = "policy"
    """How."""
    warm_up: float = Field(0.1, ge=0, le=1)
    """Share of training in which all teachers count alike."""
    policy_lr: float = Field(0.1, gt=0)
    """Length of the policy's gradient steps, or how fast learned weights follow."""
    reward: Literal["ce", "ce_kd"] = "ce"
    """-CE of the student, or -CE - distillation loss: the first two of the paper's three; the third was not at hand."""
    memory: float = Field(0.9, ge=0, lt=1)
    """What the average reward keeps of itself at each step."""

    def build(self, on: "Worker") -> "LiveSelection":
        """The policy, or the weights."""
        return LiveSelection(on, self)


class LiveSelection(Live):
    """Chooses for each micro-batch, and learns after each step. What is learned is the same on every worker."""

    def __init__(self, on: "Worker", config: Selection) -> None:
        self._on, self._config = on, config
        width, teachers = on.student.head_VD.shape[1], len(config.teachers)
        self.policy_KE = torch.zeros(teachers, width + 1, dtype=torch.float64)
        self.weight_K = torch.full((teachers,), 1 / teachers, dtype=torch.float64)
        self._before_KE = torch.zeros_like(self.policy_KE)
        """Mean gradient of log pi over the utterances of the step before."""
        self._average = torch.full((), float("nan"), dtype=torch.float64)
        """Of earlier rewards."""
        self._gradient_KE = torch.zeros_like(self.policy_KE)
        self._utterances = 0

    def before_step(self, batch: Batch, clock: Clock) -> None:
        """Choose."""
        config = self._config
        rows = len(batch.mel_BMF)
        decides = config.choose == "policy" and clock.progress >= config.warm_up
        learner: Any = self._on.student.current() if decides else None  # of all workers, also those without an utterance
        if not batch.ids:
            weight_BK = torch.zeros(rows, len(self.weight_K), dtype=torch.float64)
        elif decides:
            weight_BK = self._chosen(learner, batch, clock)
        else:
            weight_BK = self.weight_K.expand(rows, -1)
        of_teachers = weight_BK.to(batch.mel_BMF.device).unbind(1)
        batch.memo[SELECTED] = dict(zip(config.teachers, of_teachers, strict=True))

    def _chosen(self, learner: Any, batch: Batch, clock: Clock) -> Tensor:
        about_BE = _about(learner, batch)
        probability_BK = torch.sigmoid(about_BE @ self.policy_KE.T)
        drawn = [clock.draws("teachers", utterance).random(len(self.weight_K)) for utterance in batch.ids]
        taken_BK = (torch.from_numpy(np.stack(drawn)) < probability_BK).double()
        self._gradient_KE += (taken_BK - probability_BK).T @ about_BE
        self._utterances += len(batch.ids)
        return taken_BK / taken_BK.sum(1, keepdim=True).clamp(min=1)

    def after_update(self, clock: Clock, means: Mapping[str, float]) -> None:
        """Learn from the step."""
        if self._config.choose == "policy":
            self._reward(means)
        elif self._config.choose == "learned" and clock.progress >= self._config.warm_up:
            shares = [means.get(f"{SHARE}{name}", float(old)) for name, old in self._weights()]
            self.weight_K.lerp_(torch.tensor(shares, dtype=torch.float64), min(1.0, self._config.policy_lr))
            self.weight_K /= self.weight_K.sum()

    def _weights(self) -> list[tuple[str, Tensor]]:
        return list(zip(self._config.teachers, self.weight_K.unbind(), strict=True))

    def _reward(self, means: Mapping[str, float]) -> None:
        """The loss of this step is what came of the choices of the step before."""
        config = self._config
        reward = -means["ce"]
        if config.reward == "ce_kd":
            reward -= sum(value for name, value in means.items() if name.startswith("kl_"))
        if not torch.isnan(self._average):
            self.policy_KE += config.policy_lr * (reward - self._average) * self._before_KE
        old = self._average if not torch.isnan(self._average) else torch.tensor(reward, dtype=torch.float64)
        self._average = config.memory * old + (1 - config.memory) * reward
        total = torch.cat((self._gradient_KE.flatten(), torch.tensor([float(self._utterances)], dtype=torch.float64)))
        if self._on.world > 1:
            total = total.to(self._on.device)
            dist.all_reduce(total)
            total = total.cpu()
        self._before_KE = (total[:-1] / total[-1].clamp(min=1)).view_as(self.policy_KE)
        self._gradient_KE, self._utterances = torch.zeros_like(self.policy_KE), 0

    def state(self) -> dict[str, Tensor]:
        """The policy with what it waits to learn from, and the weights."""
        return {"policy": self.policy_KE, "weight": self.weight_K, "before": self._before_KE, "average": self._average}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The same."""
        wide = {name: tensor.to("cpu", torch.float64) for name, tensor in state.items()}
        self.policy_KE, self.weight_K, self._before_KE, self._average = (
            wide[name] for name in ("policy", "weight", "before", "average")
        )


def _about(learner: Any, batch: Batch) -> Tensor:
    """What describes each utterance, a 1 at its end."""
    with evaluating(learner):
        states_BSD = learner.states(batch).double().cpu()
    positions_B = (torch.tensor(batch.frames)[:, None] + 1) // 2
    heard_BS1 = (torch.arange(states_BSD.shape[1]) < positions_B)[..., None].double()
    mean_BD = torch.nn.functional.normalize((states_BSD * heard_BS1).sum(1), dim=1)
    return torch.cat((mean_BD, mean_BD.new_ones(len(mean_BD), 1)), 1)
