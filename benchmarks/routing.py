"""What routing costs: a Whisper with language experts against its base model and against computing both blocks.

    python benchmarks/routing.py [--shape small] [--repeats 5] [--tokens 20]

Random weights at a published shape, one clip, the whole window, two threads, taking turns: the base model, routed (each token
through one block), and both blocks for every token with the result chosen after, as the released code of Multilingual
DistilWhisper does. Gates as they are drawn before training send about half of the tokens each way; that is printed too.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from inference_speedup import SHAPES
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import Tensor

from raykd.config.models import ScratchConfig
from raykd.evaluation.decode import encode, greedy_decode
from raykd.models.demo import new_whisper
from raykd.models.experts import with_experts
from raykd.models.routing import LayerExperts, speaking

LANGUAGE = "cs"
PREFIX = [50258, 50283, 50359, 50363]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    sizes = SHAPES[options.shape]
    model = new_whisper(ScratchConfig(**sizes, ffn=4 * sizes["width"], window_s=30, max_label_tokens=448), seed=0)
    routed = with_experts(model)
    routed.add_expert(LANGUAGE)
    mel_BMF = torch.randn(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "base model": lambda: timed(routed, [], mel_BMF, options.tokens),
        "routed": lambda: timed(routed, [LANGUAGE], mel_BMF, options.tokens),
        "both blocks": lambda: in_both(routed, mel_BMF, options.tokens),
    }
    for run in sides.values():
        run()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, run in sides.items():
            found[name].append(run())
    Console(width=160).print(table_of(found, routed, options))
    print(f"share of tokens through the expert: {use(routed, mel_BMF):.3f}")


@torch.inference_mode()
def timed(model: Any, languages: Sequence[str], mel_BMF: Tensor, tokens: int) -> tuple[float, float]:
    """Seconds of encoder and decoder."""
    begin = time.perf_counter()
    with speaking(model, languages):
        states_BSD = encode(model, mel_BMF)
        heard = time.perf_counter()
        greedy_decode(model, states_BSD, torch.tensor([PREFIX]), tokens, stop_ids=[])
    return heard - begin, time.perf_counter() - heard


def in_both(model: Any, mel_BMF: Tensor, tokens: int) -> tuple[float, float]:
    """The same with both blocks computed for every token."""

    def before(self: LayerExperts, fc1: Any, arguments: tuple[Tensor]) -> None:
        self._x_BTD = arguments[0]

    def after(self: LayerExperts, fc2: Any, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        expert: Any = self[LANGUAGE]
        x_BTD, self._x_BTD = self._x_BTD, None
        assert x_BTD is not None
        return torch.where((expert.gate(x_BTD) >= 0)[..., None], expert(x_BTD), output)

    handles = []
    for _, _, layer in model.layers():
        for module in (layer.fc1, layer.fc2):
            module._kept = dict(module._forward_pre_hooks), dict(module._forward_hooks)
            module._forward_pre_hooks.clear()
            module._forward_hooks.clear()
        handles.append(layer.fc1.register_forward_pre_hook(before.__get__(layer.experts)))
        handles.append(layer.fc2.register_forward_hook(after.__get__(layer.experts)))
    seconds = timed(model, [], mel_BMF, tokens)
    for handle in handles:
        handle.remove()
    for _, _, layer in model.layers():
        for module in (layer.fc1, layer.fc2):
            module._forward_pre_hooks.update(module._kept[0])
            module._forward_hooks.update(module._kept[1])
    return seconds


@torch.inference_mode()
def use(model: Any, mel_BMF: Tensor) -> float:
    """Of the encoder's tokens and layers, those that go through the expert."""
    with speaking(model, [LANGUAGE], watched=True) as gates:
        encode(model, mel_BMF)
    record = gates["encoder"]
    assert isinstance(record.hard_BT, Tensor)
    return float(record.hard_BT.mean()) / record.layers


def table_of(found: dict[str, list[tuple[float, float]]], model: Any, options: argparse.Namespace) -> Table:
    config = model.config
    block = 2 * 2 * config.d_model * config.encoder_ffn_dim
    gate = 2 * config.d_model * 64
    flops = {"base model": block, "routed": block + gate, "both blocks": 2 * block + gate}
    table = Table(box=MARKDOWN, title=f"{options.shape}, 30 s, {options.tokens} tokens, {torch.get_num_threads()} threads")
    for name in ("", "MFLOP a token and layer", "encoder, ms", "decoder, ms", "both, ms", "times the base"):
        table.add_column(name, justify="right" if name else "left")
    base = statistics.median(sum(one) for one in found["base model"])
    for name, seconds in found.items():
        encoder, decoder = (statistics.median(one[part] for one in seconds) for part in (0, 1))
        both = statistics.median(sum(one) for one in seconds)
        cells = (
            f"{flops[name] / 1e6:.2f}",
            f"{1e3 * encoder:.0f}",
            f"{1e3 * decoder:.0f}",
            f"{1e3 * both:.0f}",
            f"{both / base:.3f}",
        )
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()
