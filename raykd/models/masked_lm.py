"""The masked language model: a stack of bidirectional LSTMs over Whisper's byte-pair tokens, embedding and output head tied.

From Hobit2002/TracheoSpeech_ASR `mlm/lstm_models.py`: the next layer reads both directions side by side, the top layer's
directions are averaged, normalised and multiplied with the embedding. At width 512, 6 layers and 51 865 tokens it has 62.26 M
parameters. Each direction is an LSTM of its own here, so that either can be run over a part of a sequence.

Padding is not seen (in the published code it is): it follows the end in both reading directions, and an LSTM looks back only.

Shapes: B sequences, T token positions, N copies of sequences with one position masked, D width.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from raykd import storage
from raykd.data.text import LabelEncoder
from raykd.errors import UserError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_MODEL_TYPE = "raykd_masked_lm"
_CHUNK_POSITIONS = 1 << 15
"""Positions of copies computed at a time: at width 512 a layer's input then takes 128 MiB in float32."""


class MaskedLm(nn.Module):
    """Predicts the token at a position from those on both sides of it."""

    def __init__(self, vocabulary: int, width: int, layers: int, mask_id: int) -> None:
        super().__init__()
        self.mask_id = mask_id
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(_BiLstm(width if layer == 0 else 2 * width, width) for layer in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)  # ours: with PyTorch's 1.0 the tied logits start in the tens

    def prune(self, kept: Sequence[int]) -> None:
        """Leave it those tokens, numbered anew in their order; its logits over them stay what they are. In place."""
        weight_KD = self.embedding.weight.detach()[torch.as_tensor(kept)].clone()
        self.embedding = nn.Embedding.from_pretrained(weight_KD, freeze=not self.embedding.weight.requires_grad)
        self.mask_id = list(kept).index(self.mask_id)

    def forward(self, tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """States_BTD, whose product with the embedding are the logits. One that is not masked has seen its own token."""
        backwards_BT = _reversal(tokens_BT, lengths_B)
        states_BTD = self.embedding(tokens_BT)
        for layer in self.layers:
            ahead_BTD, back_BTD = layer(states_BTD, backwards_BT)
            states_BTD = torch.cat((ahead_BTD, back_BTD), dim=-1)
        return self.norm((ahead_BTD + back_BTD) / 2)

    def masked(self, tokens_BT: Tensor, masked_BT: Tensor) -> Tensor:
        """The tokens with the mask token at the marked positions."""
        return torch.where(masked_BT, self.mask_id, tokens_BT)

    @torch.no_grad()
    def exact_states(self, tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """States_BTD at every position after the first, each predicted with that position masked and no other.

        This is the published meaning (`asr/mlm_teacher.py` there, one pass for each position). All copies of all sequences run
        together, and two halves of the work are shared or left out, which changes nothing:

        - layer 1 reads tokens, so up to position t-1 its forward states are those of the unmasked sequence, and from t+1 on its
          backward states; each copy goes on from there;
        - of the top layer only the states at t are wanted: the forward direction stops there, and so does the backward one.

        In between every position has seen the mask through the other direction, so nothing more is shared: L layers cost
        (2 L - 2) / 2 L of the plain passes, and a single layer costs next to nothing. First positions (never a label) are 0.
        """
        states_BTD = self.norm.weight.new_zeros(*tokens_BT.shape, len(self.norm.weight))
        shared = _SharedFirstLayer(self, tokens_BT, lengths_B)
        for rows_N, positions_N in _copies(lengths_B, tokens_BT.shape[1]):
            states_BTD[rows_N, positions_N] = self._masked_once(tokens_BT, lengths_B, rows_N, positions_N, shared)
        return states_BTD

    @torch.no_grad()
    def fast_states(self, tokens_BT: Tensor, lengths_B: Tensor, passes: int) -> Tensor:
        """States_BTD at every position, in `passes` passes: pass r masks the positions r, r + passes, ... at once.

        Another function than `exact_states`: each prediction misses the tokens a multiple of `passes` away as well. A model
        trained with a mask share near 1 / `passes` knows this situation. (Running the unmasked stack once and reading it at t-1
        and t+1 would not be fast but wrong: above layer 1 these states have seen token t.)
        """
        B, T = tokens_BT.shape
        positions_T = torch.arange(T, device=tokens_BT.device)
        masked_PT = positions_T % passes == torch.arange(passes, device=tokens_BT.device)[:, None]
        copies_XT = self.masked(tokens_BT[:, None], masked_PT).flatten(0, 1)
        states_XTD = self(copies_XT, lengths_B.repeat_interleave(passes))
        return states_XTD.unflatten(0, (B, passes))[:, positions_T % passes, positions_T]

    @torch.no_grad()
    def word_states(self, tokens_BT: Tensor, lengths_B: Tensor, starts_word_V: Tensor) -> Tensor:
        """States_BTD at every position after the first, each predicted with the rest of its word masked as well.

        Ours. In byte pairs most tokens are parts of words, and a part whose neighbours are given is hardly ever in doubt: what
        `exact_states` teaches is spelling. Here a position sees the parts of its word before it, which a student that writes
        from left to right has seen too, and none after it.

        `starts_word_V` marks tokens that start a word; special tokens are among them.
        """
        states_BTD = self.norm.weight.new_zeros(*tokens_BT.shape, len(self.norm.weight))
        T = tokens_BT.shape[1]
        steps_T = torch.arange(T, device=tokens_BT.device)
        starts_BT = torch.where(starts_word_V[tokens_BT] | (steps_T >= lengths_B[:, None]), steps_T, T)
        after_BT = torch.cat((starts_BT[:, 1:], torch.full_like(starts_BT[:, :1], T)), dim=1)
        next_start_BT = after_BT.flip(1).cummin(dim=1).values.flip(1)
        for rows_N, positions_N in _copies(lengths_B, T):
            masked_NT = (steps_T >= positions_N[:, None]) & (steps_T < next_start_BT[rows_N, positions_N, None])
            states_NTD = self(self.masked(tokens_BT[rows_N], masked_NT), lengths_B[rows_N])
            states_BTD[rows_N, positions_N] = states_NTD[torch.arange(len(rows_N), device=rows_N.device), positions_N]
        return states_BTD

    def _masked_once(
        self, tokens_BT: Tensor, lengths_B: Tensor, rows_N: Tensor, positions_N: Tensor, shared: "_SharedFirstLayer"
    ) -> Tensor:
        """Normalised states_ND at each copy's masked position."""
        copies_NT = tokens_BT[rows_N]
        copies_NT[torch.arange(len(rows_N), device=rows_N.device), positions_N] = self.mask_id
        lengths_N = lengths_B[rows_N]
        backwards_NT = _reversal(copies_NT, lengths_N)
        from_end_N = lengths_N - 1 - positions_N
        inputs_NTD = self.embedding(copies_NT)
        if len(self.layers) == 1:
            ahead_ND = shared.ahead.state_at(inputs_NTD, rows_N, positions_N)
            back_ND = shared.back.state_at(_along(inputs_NTD, backwards_NT), rows_N, from_end_N)
            return self.norm((ahead_ND + back_ND) / 2)
        ahead_NTD = shared.ahead.states(inputs_NTD, rows_N, positions_N, lengths_N)
        back_NTD = shared.back.states(_along(inputs_NTD, backwards_NT), rows_N, from_end_N, lengths_N)
        states_NTD = torch.cat((ahead_NTD, _along(back_NTD, backwards_NT)), dim=-1)
        for layer in self.layers[1:-1]:
            states_NTD = torch.cat(layer(states_NTD, backwards_NT), dim=-1)
        top: Any = self.layers[-1]
        ahead_ND = _last_state(top.ahead, states_NTD, positions_N + 1)
        back_ND = _last_state(top.back, _along(states_NTD, backwards_NT), from_end_N + 1)
        return self.norm((ahead_ND + back_ND) / 2)


class _BiLstm(nn.Module):
    """One layer: an LSTM over the sequence and another over its reversal."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(inputs, width, batch_first=True)
        self.back = nn.LSTM(inputs, width, batch_first=True)

    def forward(self, states_BTD: Tensor, backwards_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Both directions' states_BTD, in the order of the sequence."""
        ahead_BTD, _ = self.ahead(states_BTD)
        back_BTD, _ = self.back(_along(states_BTD, backwards_BT))
        return ahead_BTD, _along(back_BTD, backwards_BT)


class _SharedFirstLayer:
    """Both directions of layer 1 over the unmasked sequences of a batch."""

    def __init__(self, model: MaskedLm, tokens_BT: Tensor, lengths_B: Tensor) -> None:
        inputs_BTD = model.embedding(tokens_BT)
        first: Any = model.layers[0]
        self.ahead = _SharedDirection(first.ahead, inputs_BTD)
        self.back = _SharedDirection(first.back, _along(inputs_BTD, _reversal(tokens_BT, lengths_B)))


class _SharedDirection:
    """One direction of layer 1: a copy's states are those of the unmasked sequence up to its masked position, its own after."""

    def __init__(self, lstm: nn.LSTM, inputs_BTD: Tensor) -> None:
        self._lstm = lstm
        state_BD = cell_BD = inputs_BTD.new_zeros(len(inputs_BTD), lstm.hidden_size)
        states, cells = [state_BD], [cell_BD]
        for position in range(inputs_BTD.shape[1]):
            state_BD, cell_BD = self._step(inputs_BTD[:, position], state_BD, cell_BD)
            states.append(state_BD)
            cells.append(cell_BD)
        # Entry t is what position t starts from.
        self._states_BTD, self._cells_BTD = torch.stack(states, 1), torch.stack(cells, 1)

    def state_at(self, inputs_NTD: Tensor, rows_N: Tensor, positions_N: Tensor) -> Tensor:
        """States_ND at the masked positions alone."""
        inputs_ND = inputs_NTD[torch.arange(len(rows_N), device=rows_N.device), positions_N]
        start = self._states_BTD[rows_N, positions_N], self._cells_BTD[rows_N, positions_N]
        return self._step(inputs_ND, *start)[0]

    def states(self, inputs_NTD: Tensor, rows_N: Tensor, positions_N: Tensor, lengths_N: Tensor) -> Tensor:
        """States_NTD of the copies."""
        steps_T = torch.arange(inputs_NTD.shape[1], device=rows_N.device)
        source_NT = (steps_T + positions_N[:, None]).clamp(max=inputs_NTD.shape[1] - 1)
        start = self._states_BTD[rows_N, positions_N][None], self._cells_BTD[rows_N, positions_N][None]
        packed = pack_padded_sequence(
            _along(inputs_NTD, source_NT), (lengths_N - positions_N).cpu(), batch_first=True, enforce_sorted=False
        )
        own_NSD, _ = pad_packed_sequence(self._lstm(packed, start)[0], batch_first=True)
        since_NT = steps_T - positions_N[:, None]
        own_NTD = _along(own_NSD, since_NT.clamp(0, own_NSD.shape[1] - 1))
        return torch.where(since_NT[..., None] >= 0, own_NTD, self._states_BTD[rows_N, 1:])

    def _step(self, inputs_BD: Tensor, state_BD: Tensor, cell_BD: Tensor) -> tuple[Tensor, Tensor]:
        weights: Any = (self._lstm.weight_ih_l0, self._lstm.weight_hh_l0, self._lstm.bias_ih_l0, self._lstm.bias_hh_l0)
        return torch.lstm_cell(inputs_BD, (state_BD, cell_BD), *weights)


def _last_state(lstm: nn.LSTM, inputs_NTD: Tensor, lengths_N: Tensor) -> Tensor:
    """The LSTM's state_ND after the first `lengths_N` positions of each sequence."""
    packed = pack_padded_sequence(inputs_NTD, lengths_N.cpu(), batch_first=True, enforce_sorted=False)
    return lstm(packed)[1][0][0]


def _copies(lengths_B: Tensor, T: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows_N, positions_N) of all positions after the first, in chunks; like lengths of the remaining work lie together. No
    chunk when there are no such positions, as for a worker without an utterance.
    """
    positions_T = torch.arange(T, device=lengths_B.device)
    wanted_TB = (positions_T[:, None] < lengths_B) & (positions_T[:, None] > 0)
    positions_N, rows_N = wanted_TB.nonzero(as_tuple=True)
    size = max(1, _CHUNK_POSITIONS // max(T, 1))
    if len(rows_N):
        yield from zip(rows_N.split(size), positions_N.split(size), strict=True)


def _reversal(tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """Index_BT that reverses each sequence and leaves its padding where it is; its own inverse."""
    positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    return torch.where(positions_T < lengths_B[:, None], lengths_B[:, None] - 1 - positions_T, positions_T)


def _along(states_BTD: Tensor, index_BS: Tensor) -> Tensor:
    """states_BSD at the indexed positions."""
    return states_BTD.gather(1, index_BS[..., None].expand(-1, -1, states_BTD.shape[-1]))


def new_masked_lm(vocabulary: int, width: int, layers: int, mask_id: int, seed: int) -> MaskedLm:
    """An untrained model, float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedLm(vocabulary, width, layers, mask_id)


def save_masked_lm(model: MaskedLm, folder: str) -> None:
    """Write config and weights into a folder, local or remote; its tokenizer and words file are others' to write."""
    shape = {
        "model_type": _MODEL_TYPE,
        "vocab_size": model.embedding.num_embeddings,
        "width": model.embedding.embedding_dim,
        "layers": len(model.layers),
        "mask_token_id": model.mask_id,
    }
    weights = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in model.state_dict().items()}
    storage.write_bytes(storage.join(folder, WEIGHTS_FILE), save(weights))
    storage.write_text(storage.join(folder, CONFIG_FILE), json.dumps(shape, indent=2))


def load_masked_lm(folder: str, dtype: torch.dtype = torch.float32) -> MaskedLm:
    """The model in a folder that `save_masked_lm` wrote, in eval mode.

    Raises:
        UserError: the folder holds no masked language model, or a damaged one.
    """
    shape = masked_lm_config(folder)
    model = MaskedLm(shape["vocab_size"], shape["width"], shape["layers"], shape["mask_token_id"])
    try:
        model.load_state_dict(load(storage.read_bytes(storage.join(folder, WEIGHTS_FILE))))
    except Exception as error:  # safetensors and torch each have their own errors for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: {WEIGHTS_FILE} cannot be read ({reason}); copy or train the model again") from None
    return model.to(dtype).eval()


def masked_lm_config(folder: str) -> dict[str, Any]:
    """`config.json` of a masked language model: vocab_size, width, layers, mask_token_id.

    Raises:
        UserError: the folder holds no masked language model.
    """
    path = storage.join(folder, CONFIG_FILE)
    advice = "give a folder that `python -m raykd.train_mlm` wrote, or its config (.yaml)"
    if not storage.exists(path):
        raise UserError(f"{folder}: no masked language model there ({CONFIG_FILE} is missing); {advice}")
    try:
        values: dict[str, Any] = json.loads(storage.read_bytes(path))
    except ValueError:
        raise UserError(f"{path}: is not valid JSON; {advice}") from None
    if values.get("model_type") != _MODEL_TYPE:
        raise UserError(f"{folder}: is a {values.get('model_type', 'nameless')} model, not a masked language model; {advice}")
    return values


def check_same_vocabulary(mlm: str, whisper: str) -> None:
    """A masked language model can only teach a Whisper whose tokens are its own, all of them or some.

    Raises:
        UserError: the folders' tokenizers differ.
    """
    if not _is_cut_from(LabelEncoder(mlm), whisper):
        raise UserError(
            f"objective.mlm: {mlm} speaks another vocabulary than the student; "
            "train one with mlm.tokenizer set to the student's model"
        )


def _is_cut_from(whole: LabelEncoder, whisper: str) -> bool:
    """Whether a Whisper's tokenizer is this one, or this one cut to the tokens that the model's config names."""
    from raykd.models.pruning import kept_tokens
    from raykd.models.whisper import read_config

    ours, kept = LabelEncoder(whisper), kept_tokens(read_config(whisper))
    if kept is None or ours.fingerprint == whole.fingerprint:
        return ours.fingerprint == whole.fingerprint
    all_names, names = whole.token_names(), ours.token_names()
    return all(names.get(new) == all_names.get(old) for new, old in enumerate(kept))
