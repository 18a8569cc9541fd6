"""The masked language model as a teacher: a token distribution at every label position, from the text alone.

Shapes: B utterances, U label positions, T positions of the whole sequence (U + 1), N valid tokens, D width.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from raykd.config.base import Mark, trained_by_raykd
from raykd.config.models import DType
from raykd.data.batches import IGNORED_LABEL, Batch
from raykd.models.precision import compute_dtype
from raykd.parts.distribution import HeadDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.targets.target import LiveTarget, Target

if TYPE_CHECKING:
    from raykd.models.masked_lm import MaskedLm
    from raykd.parts.worker import Worker


class MlmTarget(Target):
    """A masked language model that teaches. A string stands for its `model`."""

    kind: Literal["mlm"] = "mlm"
    model: Annotated[str, Mark.MLM]
    """Folder of a masked language model, or a config of `raykd.train_mlm` (`.yaml`, relative to this one): it is trained first,
    once, and cached."""
    positions: Literal["exact", "fast", "word"] = "exact"
    """exact: each position is predicted with itself masked and no other, as published. fast: every `passes`-th position is
    masked at once, another function that needs only `passes` passes. word (ours): the rest of the position's word is masked
    too, so that the prediction is about the language and not about how a word goes on whose end is given."""
    passes: int = Field(8, ge=2)
    """For `fast`: passes over each batch, and the distance of two masks."""
    dtype: DType = "auto"
    """Weights' type while teaching; auto: bfloat16 on GPUs that have it. On CPUs always float32."""
    cache_mb: Annotated[int, Mark.FREE] = Field(1024, ge=0)
    """Memory (not the GPU's) of each worker for the predictions of texts that it has seen; 0: none."""

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_model(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @property
    def trained_by_raykd(self) -> bool:
        """Whether `model` is a raykd config."""
        return trained_by_raykd(self.model)

    def build(self, on: "Worker") -> "MlmTeacher":
        """The model on the device.

        Raises:
            UserError: the folder holds no masked language model, or a damaged one.
        """
        from raykd.data.text import LabelEncoder
        from raykd.models.masked_lm import load_masked_lm

        # Many CPUs have no LSTM in bfloat16, and PyTorch fails there.
        dtype = torch.float32 if on.device.type == "cpu" else compute_dtype(self.dtype, on.device)
        model, starts_word_V = load_masked_lm(self.model, dtype), torch.from_numpy(LabelEncoder(self.model).starts_word)
        if on.kept_tokens is not None:
            model.prune(on.kept_tokens)
            starts_word_V = starts_word_V[torch.as_tensor(on.kept_tokens)]
        return MlmTeacher(model.to(on.device), self, starts_word_V)


class MlmTeacher(LiveTarget):
    """Predicts each label from the gold labels on both sides of it, the future included.

    Prefix tokens and end of text are predicted too, as published (`asr/mlm_teacher.py`). The predictions of a text never
    change, so each worker keeps those of the texts that it has seen, up to `cache_mb`: D numbers a token, not the distribution
    over the vocabulary. A text that comes again is computed again when it comes to another worker: of a second epoch over two
    workers half, over eight workers seven eighths.
    """

    def __init__(self, model: "MaskedLm", config: MlmTarget, starts_word_V: Tensor) -> None:
        """`starts_word_V`: tokens that start a word (`LabelEncoder.starts_word`)."""
        self.model = model.requires_grad_(False).eval()
        self._starts_word_V = starts_word_V.to(model.norm.weight.device)
        self._config = config
        self._cache: OrderedDict[bytes, Tensor] = OrderedDict()
        self._cached_bytes = 0

    def outputs(self, batch: Batch, wanted: frozenset[str], others: Mapping[str, Outputs]) -> Outputs:
        """See `LiveTarget`."""
        return Outputs(self.distribution(batch.decoder_input_BU.cpu(), batch.labels_BU.cpu()))

    def distribution(self, decoder_input_BU: Tensor, labels_BU: Tensor) -> HeadDistribution:
        """The distribution at the valid label positions, row after row. Both tensors lie on the CPU."""
        rows = [_text(*row) for row in zip(decoder_input_BU, labels_BU, strict=True)]
        keys = [row.numpy().tobytes() for row in rows]
        known = {key: self._cache[key] for key in keys if key in self._cache}
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        if missing:
            known |= zip(missing, self._states(list(missing.values())), strict=True)
        for key in keys:
            self._keep(key, known[key])
        weight_VD = self.model.embedding.weight
        return HeadDistribution(torch.cat([known[key].to(weight_VD.device) for key in keys]), weight_VD)

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
        self._cache[key] = states_UD.cpu()
        self._cached_bytes += states_UD.nbytes
        while self._cached_bytes > self._config.cache_mb * 1_000_000:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes


def _text(inputs_U: Tensor, labels_U: Tensor) -> Tensor:
    """The start token and all labels of a row. What lies before the start is text of the window before, and has no labels."""
    valid_U = labels_U != IGNORED_LABEL
    start = int(valid_U.int().argmax())
    return torch.cat((inputs_U[start : start + 1], labels_U[valid_U]))
