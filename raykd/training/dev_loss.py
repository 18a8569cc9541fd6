"""The loss on dev inside of training, for parts that choose among weights (a snapshot of the best)."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from raykd.data.batches import collate
from raykd.data.corpus import Corpus, Index, read_utterances
from raykd.data.token_map import TokenMap
from raykd.models.window import heard_frames
from raykd.parts.clock import Clock
from raykd.parts.outputs import Outputs
from raykd.parts.students.learner import evaluating
from raykd.parts.terms.ce import Ce
from raykd.training.objective import ActiveTerm, objective

_MOST = 256
"""Utterances measured, evenly spaced over dev."""


class DevLoss:
    """Mean cross-entropy on the labels over some dev utterances, shared out over the workers."""

    def __init__(
        self,
        corpus: Corpus,
        tokens: TokenMap | None,
        batch_size: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> None:
        """`tokens`: to the student's ids, where they are not the corpus's."""
        self._corpus, self._tokens, self._batch_size = corpus, tokens, batch_size
        self._pad_id = corpus.pad_id if tokens is None else tokens.pad_id
        self._rank, self._world, self._device = rank, world, device
        self._index: Index | None = None

    def __call__(self, learner: Any) -> float:
        """The loss of a learner with whole weights. Collective: every worker calls it."""
        if self._index is None:
            self._index = self._corpus.index("dev")
        positions = (
            np.linspace(0, len(self._index) - 1, min(_MOST, len(self._index))).round().astype(int)[self._rank :: self._world]
        )
        total = torch.zeros(2, dtype=torch.float64, device=self._device)
        with evaluating(learner):
            for start in range(0, len(positions), self._batch_size):
                rows = read_utterances(self._corpus.path, self._index, positions[start : start + self._batch_size])
                rows = rows if self._tokens is None else [self._tokens.utterance(row) for row in rows]
                frames = heard_frames(learner.config, max(row.mel.shape[1] for row in rows))
                batch = collate(rows, frames, self._pad_id).to(self._device)
                student = Outputs(hidden_ND=learner(batch)[0])
                _, sums_K = objective(student, learner.head_VD, batch, {}, [ActiveTerm(Ce(), 1.0)], Clock(0, 1))
                total += torch.stack([sums_K[0], sums_K.new_tensor(batch.n_valid())])
        if self._world > 1:
            dist.all_reduce(total)
        return float(total[0] / total[1])
