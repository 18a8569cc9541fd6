"""Labels of a corpus for models whose vocabulary was cut (`models.pruning`)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raykd.data.corpus import Utterance
from raykd.data.format import SpeechFormat
from raykd.data.text import LabelEncoder


class TokenMap:
    """From ids of the corpus's vocabulary to a model's, which has some of its tokens. Picklable and small.

    A token that the model does not have is spelled in the two that it was merged from, and so on. No training label has any:
    they decide what is kept.
    """

    def __init__(self, corpus: LabelEncoder, kept: Sequence[int]) -> None:
        """`kept`: of each of the model's tokens, its id in the corpus's vocabulary, ascending."""
        self._corpus, self._kept = corpus, np.asarray(kept, np.int64)

    @classmethod
    def of(cls, wanted: SpeechFormat, kept: Sequence[int] | None) -> "TokenMap | None":
        """For a corpus that was made for this; None where the model's vocabulary is the corpus's."""
        return None if kept is None else cls(LabelEncoder(wanted.tokenizer, wanted.tokenizer_revision), kept)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_new_ids"}

    @cached_property
    def _new_ids(self) -> NDArray[np.int64]:
        """-1 where the model has no such token."""
        new_ids = np.full(int(self._kept[-1]) + 1, -1, np.int64)
        new_ids[self._kept] = np.arange(len(self._kept))
        return new_ids

    @property
    def pad_id(self) -> int:
        """The model's."""
        return int(self._new_ids[self._corpus.pad_id])

    def ids(self, ids: Sequence[int]) -> list[int]:
        """The same text and special tokens in the model's ids."""
        found = self._new_ids[np.asarray(ids, np.int64)]
        if (found >= 0).all():
            return found.tolist()
        return [one for number in ids for one in self._spelled(number)]

    def _spelled(self, number: int) -> list[int]:
        new = int(self._new_ids[number])
        if new >= 0:
            return [new]
        return [one for part in self._corpus.merged_from(number) for one in self._spelled(part)]

    def utterance(self, utterance: Utterance) -> Utterance:
        """The utterance with the model's ids."""
        prompt, rest = utterance.tokens[: utterance.n_prompt], utterance.tokens[utterance.n_prompt :]
        read = self.ids(prompt) if prompt else []
        return replace(utterance, tokens=[*read, *self.ids(rest)], n_prompt=len(read))
