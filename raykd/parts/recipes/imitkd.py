"""Imitation: the teacher corrects the student on what the student itself has said.

Shapes: B utterances, L utterances that are sampled, S encoder positions, U label positions, N tokens, V vocabulary, D width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from raykd.config.schedule import ScheduleConfig, Weight
from raykd.data.batches import IGNORED_LABEL, Batch
from raykd.models.routing import speaking
from raykd.parts.clock import Clock
from raykd.parts.contexts.context import Context, LiveContext
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.students.learner import evaluating
from raykd.parts.targets.target import TEACHER
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.term import Chunk, TokenTerm

if TYPE_CHECKING:
    from raykd.parts.worker import Worker


class StudentSamples(Context):
    """With probability 1 - beta an utterance's decoder input is what the student itself says (Lin et al. 2020, arXiv
    2009.07253).

    From asappresearch/imitkd: a choice for each sequence, no gradient, dropout off. Ours: the length is capped by the label's,
    start, language and task tokens are given, and the choice follows from (seed, step, utterance) alone.
    """

    kind: Literal["student_samples"] = "student_samples"
    beta: Weight = ScheduleConfig(kind="exponential", start=1.0, end=1 / 200)
    """Share of utterances that keep the label: a number, or a schedule such as the paper's base^(-t/N), base 200."""
    top_k: int = Field(1, ge=1)
    """Each token is drawn from the k likeliest; 1: the likeliest (greedy)."""

    def build(self, on: "Worker") -> "LiveStudentSamples":
        """See `LiveStudentSamples`."""
        return LiveStudentSamples(self, on)


class LiveStudentSamples(LiveContext):
    """Lets the student speak as it is at that step."""

    def __init__(self, config: StudentSamples, on: "Worker") -> None:
        self._config, self._student, self._labels = config, on.student, on.labels

    def apply(self, batch: Batch, clock: Clock) -> Batch:
        """See `LiveContext`. Collective under ZeRO 3, so the student is asked for even where no utterance is sampled."""
        student, beta = self._student.current(), clock.at(self._config.beta)
        draws = [clock.draws("imitkd", utterance) for utterance in batch.ids]
        rows = [row for row, draw in enumerate(draws) if draw.random() >= beta]
        if not rows:
            return batch
        with evaluating(student):
            states_BSD = student.states(batch)
            with speaking(student, [batch.languages[row] for row in rows]):
                said = self._said(student, batch, states_BSD[rows], rows, [draws[row] for row in rows])
        inputs_BU, labels_BU = batch.decoder_input_BU.clone(), batch.labels_BU.clone()
        for row, tokens in zip(rows, said, strict=True):
            length = len(tokens) - 1
            inputs_BU[row] = self._labels.pad_id
            labels_BU[row] = IGNORED_LABEL
            inputs_BU[row, :length], labels_BU[row, :length] = tokens[:-1], tokens[1:]
        sampled_B = torch.zeros(len(batch.ids), dtype=torch.bool, device=inputs_BU.device)
        sampled_B[rows] = True
        return batch.changed(decoder_input_BU=inputs_BU, labels_BU=labels_BU, sampled_B=sampled_B)

    def _said(
        self, student: Any, batch: Batch, states_LSD: Tensor, rows: list[int], draws: Sequence[np.random.Generator]
    ) -> list[Tensor]:
        """The whole sequence of each row, prefix and (where the student came to it) end of text included."""
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        prefixes = [self._labels.prefix(batch.languages[row]) for row in rows]
        most_L = [int((batch.labels_BU[row] != IGNORED_LABEL).sum()) + 1 - len(prefixes[0]) for row in rows]
        inputs_LP = torch.tensor(prefixes, device=states_LSD.device)
        said = [list(prefix) for prefix in prefixes]
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        over = [False] * len(rows)
        for position in range(max(most_L)):
            states_LPD = student.decoder(
                input_ids=inputs_LP, encoder_hidden_states=states_LSD, past_key_values=cache, use_cache=True
            ).last_hidden_state
            tokens = self._chosen(states_LPD[:, -1] @ student.head_VD.T, draws)
            for place, token in enumerate(tokens):
                if not over[place]:
                    said[place].append(token)
                    over[place] = token == self._labels.eot_id or position + 1 == most_L[place]
            if all(over):
                break
            inputs_LP = torch.tensor(tokens, device=states_LSD.device)[:, None]
        return [torch.tensor(tokens, device=states_LSD.device) for tokens in said]

    def _chosen(self, logits_LV: Tensor, draws: Sequence[np.random.Generator]) -> list[int]:
        top = logits_LV.float().topk(self._config.top_k)
        up_to_LK = top.values.softmax(-1).cumsum(-1).cpu().numpy()
        places = [
            min(int(np.searchsorted(up_to_K, draw.random(), side="right")), len(up_to_K) - 1)
            for up_to_K, draw in zip(up_to_LK, draws, strict=True)
        ]
        return [int(top.indices[row, place]) for row, place in enumerate(places)]


class Imitated(TokenTerm):
    """-log p of the label, or of the teacher's likeliest token where the decoder reads what the student has said."""

    kind: Literal["imitated"] = "imitated"
    target: str = TEACHER
    """Whose likeliest token."""

    def targets(self) -> tuple[str, ...]:
        """The teacher."""
        return (self.target,)

    def values(self, at: Chunk) -> Tensor:
        """See `TokenTerm`."""
        wanted_N = at.labels_N
        sampled_N = at.batch.mask_N("sampled")
        if sampled_N is not None:
            wanted_N = torch.where(sampled_N[at.tokens], at.target(self.target).log_NV.argmax(-1), wanted_N)
        return -at.student(self.student_temperature).log_NV.gather(1, wanted_N[:, None]).squeeze(1)


class ImitKdRecipe(Recipe):
    """ImitKD: the teacher's word on the student's own sentences, mixed with the labels' (asappresearch/imitkd
    `distillation.py`).

    full: cross-entropy with the teacher's whole distribution on both kinds of context (as KL, which differs by a constant).
    optimal: -log p of the teacher's likeliest token on the student's sentences, of the label on the label's. Ours: end of text
    and language tokens count too, as everywhere in raykd.
    """

    recipe: Literal["imitkd"] = "imitkd"
    variant: Literal["full", "optimal"] = "full"
    """What the teacher gives: its whole distribution, or its likeliest token."""
    beta: Weight = ScheduleConfig(kind="exponential", start=1.0, end=1 / 200)
    """Share of utterances that keep the label as decoder input: a number or a schedule."""
    top_k: int = Field(1, ge=1)
    """The student draws each token from its k likeliest; 1: greedy. The paper has 5 for translation."""

    def method(self) -> Method:
        """One term over both kinds of context."""
        term = Kl() if self.variant == "full" else Imitated()
        return Method(terms=(term,), context=StudentSamples(beta=self.beta, top_k=self.top_k))
