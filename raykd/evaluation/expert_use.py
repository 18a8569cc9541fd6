"""How much of the work language experts do: the share of tokens and layers whose hard gate is open (figure 2 of Multilingual
DistilWhisper, arXiv 2311.01070), with gold prefixes, encoder and decoder apart, padding left out.

Shapes: B utterances, T positions of encoder or decoder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raykd.data.batches import Batch, counted_positions
from raykd.models.routing import GateRecord, Stack

STACKS: tuple[Stack, ...] = ("encoder", "decoder")


@dataclass(frozen=True)
class ExpertUse:
    """Of one utterance: gates that are open, and all gates, by stack; none in a language without an expert."""

    used: Mapping[Stack, float]
    gates: Mapping[Stack, int]


def uses_of(gates: Mapping[Stack, GateRecord], batch: Batch, languages: Sequence[str]) -> list[ExpertUse]:
    """Of each utterance, from what the gates said in one pass over encoder and decoder."""
    masks = counted_positions(batch, frozenset(languages))
    used: dict[Stack, list[float]] = {}
    counts: dict[Stack, list[int]] = {}
    for stack in STACKS:
        record, mask_BT = gates.get(stack, GateRecord()), masks[stack]
        used[stack] = (record.hard_BT * mask_BT.to(getattr(record.hard_BT, "device", "cpu"))).sum(1).tolist()
        counts[stack] = [record.layers * count for count in mask_BT.sum(1).tolist()]
    return [
        ExpertUse({stack: used[stack][row] for stack in STACKS}, {stack: counts[stack][row] for stack in STACKS})
        for row in range(len(batch.ids))
    ]


def shares(uses: Iterable[ExpertUse | None]) -> dict[str, Any]:
    """`expert_use_encoder` and `expert_use_decoder` of some utterances; nothing where none has an expert."""
    known = [use for use in uses if use is not None]
    found = {}
    for stack in STACKS:
        gates = sum(use.gates[stack] for use in known)
        if gates:
            found[f"expert_use_{stack}"] = sum(use.used[stack] for use in known) / gates
    return found
