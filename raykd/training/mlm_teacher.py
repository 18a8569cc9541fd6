"""The masked language model as a teacher: a token distribution at every label position, from the text alone.

Shapes: B utterances, U label positions, T positions of the whole sequence (U + 1), N valid tokens, D width.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from raykd.config.mlm import MlmTeacherConfig
from raykd.data.batches import IGNORED_LABEL
from raykd.data.text import LabelEncoder
from raykd.models.masked_lm import MaskedLm, load_masked_lm
from raykd.models.precision import compute_dtype
from raykd.objectives.distribution import HeadDistribution


class MlmTeacher:
    """Predicts each label from the gold labels on both sides of it, the future included.

    Prefix tokens and end of text are predicted too, as published (`asr/mlm_teacher.py`). The predictions of a text never
    change, so they are kept, up to `cache_mb`, and the model runs once for each text and not once for each epoch. What is kept
    is the last state of D numbers a token, not the distribution over the vocabulary.
    """

    def __init__(self, model: MaskedLm, config: MlmTeacherConfig, starts_word_V: Tensor) -> None:
        """`starts_word_V`: tokens that start a word (`LabelEncoder.starts_word`)."""
        self.model = model.requires_grad_(False).eval()
        self._starts_word_V = starts_word_V.to(model.norm.weight.device)
        self._config = config
        self._cache: OrderedDict[bytes, Tensor] = OrderedDict()
        self._cached_bytes = 0

    def distribution(self, decoder_input_BU: Tensor, labels_BU: Tensor) -> HeadDistribution:
        """The distribution at the valid label positions of a batch, row after row; the batch lies on the CPU."""
        rows = [
            torch.cat((inputs_U[:1], labels_U[labels_U != IGNORED_LABEL]))
            for inputs_U, labels_U in zip(decoder_input_BU, labels_BU, strict=True)
        ]
        keys = [row.numpy().tobytes() for row in rows]
        known = {key: self._cache[key] for key in keys if key in self._cache}
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        if missing:
            known |= zip(missing, self._states(list(missing.values())), strict=True)
        for key in keys:
            self._keep(key, known[key])
        return HeadDistribution(torch.cat([known[key] for key in keys]), self.model.embedding.weight)

    def _states(self, rows: list[Tensor]) -> list[Tensor]:
        """States_UD of each sequence at its positions after the first."""
        device = self.model.norm.weight.device
        lengths_B = torch.tensor([len(row) for row in rows], device=device)
        tokens_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        if self._config.positions == "exact":
            states_BTD = self.model.exact_states(tokens_BT, lengths_B)
        elif self._config.positions == "fast":
            states_BTD = self.model.fast_states(tokens_BT, lengths_B, self._config.passes)
        else:
            states_BTD = self.model.word_states(tokens_BT, lengths_B, self._starts_word_V)
        return [states_TD[1 : len(row)].clone() for states_TD, row in zip(states_BTD, rows, strict=True)]

    def _keep(self, key: bytes, states_UD: Tensor) -> None:
        """Remember, and forget what was not asked for longest."""
        if key in self._cache:
            self._cache.move_to_end(key)
            return
        self._cache[key] = states_UD
        self._cached_bytes += states_UD.nbytes
        while self._cached_bytes > self._config.cache_mb * 1_000_000:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes


def load_mlm_teacher(folder: str, config: MlmTeacherConfig, device: torch.device) -> MlmTeacher:
    """The teacher in a folder that `raykd.train_mlm` wrote, on a device.

    Raises:
        UserError: the folder holds no masked language model, or a damaged one.
    """
    # Many CPUs have no LSTM in bfloat16, and PyTorch fails there.
    dtype = torch.float32 if device.type == "cpu" else compute_dtype(config.dtype, device)
    model = load_masked_lm(folder, dtype).to(device)
    return MlmTeacher(model, config, torch.from_numpy(LabelEncoder(folder).starts_word))
