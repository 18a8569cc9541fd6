"""Labels of a corpus for a student with a vocabulary of its own (`models.pruning`)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raykd.data.corpus import Utterance
from raykd.data.text import LabelEncoder


class TokenMap:
    """From ids of the corpus's vocabulary to a student's, which has some of its tokens. Picklable and small.

    A token that the student does not have is spelled in smaller ones. No training label has any: they decide what is kept.
    """

    def __init__(self, corpus: LabelEncoder, student: LabelEncoder, kept: Sequence[int]) -> None:
        """`kept`: of each of the student's tokens, its id in the corpus's vocabulary, ascending."""
        self.corpus, self.student = corpus, student
        self._kept = np.asarray(kept, np.int64)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_new_ids"}

    @cached_property
    def _new_ids(self) -> NDArray[np.int64]:
        """-1 where the student has no such token."""
        new_ids = np.full(int(self._kept[-1]) + 1, -1, np.int64)
        new_ids[self._kept] = np.arange(len(self._kept))
        return new_ids

    def ids(self, ids: Sequence[int]) -> list[int]:
        """The same text and special tokens in the student's ids."""
        found = self._new_ids[np.asarray(ids, np.int64)]
        if (found >= 0).all():
            return found.tolist()
        spelled: list[int] = []
        for old, new in zip(ids, found.tolist(), strict=True):
            spelled += [new] if new >= 0 else self.student.spelled(self.corpus.token(old))
        return spelled

    def utterance(self, utterance: Utterance) -> Utterance:
        """The utterance with the student's ids."""
        prompt, rest = utterance.tokens[: utterance.n_prompt], utterance.tokens[utterance.n_prompt :]
        read = self.ids(prompt) if prompt else []
        return replace(utterance, tokens=[*read, *self.ids(rest)], n_prompt=len(read))
