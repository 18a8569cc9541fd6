"""Routing of tokens to language experts: what every layer of a Whisper with experts does.

The conditional language-specific routing of Multilingual DistilWhisper (Ferraz et al. 2024, arXiv 2311.01070; naver's
`model/DistilWhisper.py`, CLSRFFN), after Zhang et al. 2021. The gate of a layer and language looks at each token's layer-normed
input x: G(x) = w2 ReLU(W1 x + b1), hidden width 64, no output bias. At inference a token whose G is 0 or more goes through the
expert alone, any other through the shared block alone: neither computes the other's tokens (the released code computes both).
While training the two are mixed by sigmoid(G + noise). Utterances of a language without an expert go through the shared block,
which is the base model's, bit for bit.

Shapes: B utterances, T positions of encoder or decoder, N = B T of them, R the rows of one language, M and L tokens that an
expert and the shared block compute, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Stack = Literal["encoder", "decoder"]
EXPERTS = "experts"
"""Key of a model's config: `{languages: [...], gate_width: 64}`."""


@dataclass
class GateRecord:
    """What the gates of a stack said in one forward pass, added up over its layers."""

    layers: int = 0
    soft_BT: Tensor | float = 0.0
    """Shares that the experts had; 0 where a language has none. While training with noise, and with a gradient."""
    hard_BT: Tensor | float = 0.0
    """How many layers would have sent the token to the expert, without noise."""


@dataclass
class Routing:
    """How a model routes now. All layers of a model share one."""

    languages: Sequence[str | None] = ()
    """Of each utterance; empty: the shared blocks alone."""
    noise: float = 0.0
    """Standard deviation of what is added to the gates while training."""
    gate_dropout: float = 0.0
    """Of a gate's input while training."""
    expert_dropout: float = 0.0
    """Of an expert's output while training."""
    skip: float = 0.0
    """Probability of a layer to leave its experts aside while training."""
    record: dict[Stack, GateRecord] | None = field(default=None, repr=False)
    """Where the gates are noted; None: nowhere."""
    memo: dict[tuple[int, torch.device], dict[str, Tensor]] = field(default_factory=dict, repr=False)
    """`rows`, which every layer asks for."""

    def rows(self, count: int, device: torch.device) -> dict[str, Tensor]:
        """rows_R of each language; beams of an utterance are rows of their own, one after the other."""
        if (count, device) not in self.memo:
            if count % len(self.languages):
                raise ValueError(f"{len(self.languages)} languages for {count} rows")
            beams = count // len(self.languages)
            found: dict[str, list[int]] = {}
            for row in range(count):
                found.setdefault(self.languages[row // beams] or "", []).append(row)
            self.memo[count, device] = {language: torch.tensor(rows, device=device) for language, rows in found.items()}
        return self.memo[count, device]


class Gate(nn.Module):
    """G(x) of one layer and language."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, 1, bias=False)

    def forward(self, x_MD: Tensor) -> Tensor:
        """G_M."""
        return self.out(torch.relu(self.hidden(x_MD))).squeeze(-1)


class Expert(nn.Module):
    """A feed-forward block of one language, and its gate."""

    def __init__(self, width: int, ffn: int, gate_width: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ffn)
        self.fc2 = nn.Linear(ffn, width)
        self.gate = Gate(width, gate_width)
        self._activation = activation

    def forward(self, x_MD: Tensor) -> Tensor:
        """What the block makes of some tokens."""
        return self.fc2(self._activation(self.fc1(x_MD)))


class LayerExperts(nn.ModuleDict):
    """The experts of one layer, by language. They stand beside the layer's own `fc1` and `fc2` and act through hooks on them,
    so that transformers' forward passes stay as they are and every name of the base model's weights too.
    """

    def __init__(self, stack: Stack, routing: Routing) -> None:
        super().__init__()
        self.stack, self.routing = stack, routing
        self._x_BTD: Tensor | None = None
        self._places: dict[str | None, Tensor | slice] = {}
        """While tokens are routed: those that go to each language's expert, and to the shared block (None), as places in the
        flattened tokens."""

    def before(self, fc1: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor] | None:
        """Hook on `fc1`: which tokens the shared block computes. All while training, or where no language has an expert."""
        x_BTD = arguments[0]
        if not self.routing.languages:
            return None
        if self.training:
            self._x_BTD = x_BTD
            return None
        its_rows = self._its_rows(x_BTD)
        if not its_rows:
            return None
        self._places = self._route(its_rows, x_BTD)
        if list(self._places) == [None]:
            return None
        self._x_BTD = x_BTD
        return (x_BTD.flatten(0, 1)[self._places[None]],)

    def after(self, fc2: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor | None:
        """Hook on `fc2`: what the experts say is mixed in, or put in the places that were left out."""
        x_BTD, self._x_BTD = self._x_BTD, None
        if x_BTD is None:
            return None
        if self.training:
            return self._mixed(self._its_rows(x_BTD), x_BTD, output)
        return self._joined(x_BTD, output)

    def _route(self, its_rows: Mapping[str, Tensor], x_BTD: Tensor) -> dict[str | None, Tensor | slice]:
        """Share the tokens out by hard gates. Every token is somewhere once; languages without a token are left out."""
        if x_BTD.shape[:2] == (1, 1):  # one clip is decoded, token by token: the bookkeeping would cost more than the gates
            (language,) = its_rows
            open_BT = self._expert(language).gate(x_BTD) >= 0
            self._note(open_BT, open_BT)
            return {None: slice(0, 0), language: slice(None)} if bool(open_BT) else {None: slice(None)}
        hard_BT = x_BTD.new_zeros(x_BTD.shape[:2], dtype=torch.bool)
        positions_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        places: dict[str | None, Tensor | slice] = {}
        for language, rows_R in its_rows.items():
            open_RT = self._expert(language).gate(x_BTD[rows_R]) >= 0
            places_M = (rows_R[:, None] * len(positions_T) + positions_T)[open_RT]
            if len(places_M):
                places[language] = places_M
            hard_BT[rows_R] = open_RT
        self._note(hard_BT, hard_BT)
        return {None: (~hard_BT).flatten().nonzero().squeeze(1), **places}

    def _joined(self, x_BTD: Tensor, shared_LD: Tensor) -> Tensor:
        """The tokens in their places again."""
        flat_ND = x_BTD.flatten(0, 1)
        joined_ND = torch.empty_like(flat_ND, dtype=shared_LD.dtype)
        for language, places_M in self._places.items():
            said_MD = shared_LD if language is None else self._expert(language)(flat_ND[places_M])
            joined_ND[places_M] = said_MD.to(joined_ND.dtype)
        return joined_ND.view_as(x_BTD)

    def _mixed(self, its_rows: Mapping[str, Tensor], x_BTD: Tensor, shared_BTD: Tensor) -> Tensor:
        """g expert + (1 - g) shared, with g a sigmoid of the noisy gate.

        Every expert takes part in every pass, if only with no tokens: workers' gradients have to be of the same parameters.
        """
        routing = self.routing
        skipped = bool(torch.rand(()) < routing.skip)
        mixed_BTD = shared_BTD
        wide = torch.promote_types(x_BTD.dtype, torch.float32)
        soft_BT, hard_BT = x_BTD.new_zeros(2, *x_BTD.shape[:2], dtype=wide)
        nobody_R = torch.zeros(0, dtype=torch.long, device=x_BTD.device)
        for language in self:
            expert = self._expert(language)
            rows_R = its_rows.get(language, nobody_R)
            x_RTD = x_BTD[rows_R]
            gate_RT = expert.gate(nn.functional.dropout(x_RTD, routing.gate_dropout)).to(wide)
            with torch.no_grad():  # as at inference: without dropout and noise
                hard_BT = hard_BT.index_add(0, rows_R, (expert.gate(x_RTD) >= 0).to(wide))
            share_RT = torch.sigmoid(gate_RT + routing.noise * torch.randn_like(gate_RT))
            soft_BT = soft_BT.index_add(0, rows_R, share_RT)
            used_R, share_RT = (rows_R[:0], share_RT[:0]) if skipped else (rows_R, share_RT)
            said_RTD = nn.functional.dropout(expert(x_BTD[used_R]), routing.expert_dropout)
            moved_RTD = share_RT[..., None].to(said_RTD.dtype) * (said_RTD - shared_BTD[used_R])
            mixed_BTD = mixed_BTD.index_add(0, used_R, moved_RTD.to(mixed_BTD.dtype))
        self._note(soft_BT, hard_BT)
        return mixed_BTD

    def _its_rows(self, x_BTD: Tensor) -> dict[str, Tensor]:
        """rows_R of each language that has an expert."""
        rows = self.routing.rows(len(x_BTD), x_BTD.device)
        return {language: rows[language] for language in self if language in rows}

    def _expert(self, language: str) -> Any:
        return self[language]

    def _note(self, soft_BT: Tensor, hard_BT: Tensor) -> None:
        if self.routing.record is not None:
            record = self.routing.record.setdefault(self.stack, GateRecord())
            record.layers += 1
            record.soft_BT, record.hard_BT = record.soft_BT + soft_BT, record.hard_BT + hard_BT.detach().float()


@contextmanager
def speaking(
    module: Any, languages: Sequence[str | None], watched: bool = False, **while_training: float
) -> Iterator[dict[Stack, GateRecord]]:
    """Route what a model, encoder or decoder computes by the languages of its utterances. Without experts nothing changes.

    Args:
        module: anything that has the model's `routing`, or nothing of the kind.
        languages: of each utterance, in the batch's order; empty, or None among them: no expert.
        watched: note the gates in what is given.
        while_training: fields of `Routing`.
    """
    routing: Routing | None = getattr(module, "routing", None)
    record: dict[Stack, GateRecord] = {}
    if routing is None:
        yield record
        return
    before = dict(routing.__dict__)
    known = any(language is not None for language in languages)
    new = {"languages": tuple(languages) if known else (), "record": record if watched else None, "memo": {}, **while_training}
    routing.__dict__.update(new)
    try:
        yield record
    finally:
        routing.__dict__.update(before)


def keep_rows(module: Any, places: Sequence[int]) -> None:
    """Inside of `speaking`: from here on the batch has only these of its rows."""
    routing: Routing | None = getattr(module, "routing", None)
    if routing is not None and routing.languages:
        routing.languages, routing.memo = tuple(routing.languages[place] for place in places), {}
