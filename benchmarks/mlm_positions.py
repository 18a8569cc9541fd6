"""All label positions of a batch from a masked language model: how long exact and fast predictions take and how they differ.

    python benchmarks/mlm_positions.py [--run RUN] [--width 512] [--layers 6] [--batch-size 8] [--tokens 44]

With --run, the trained model and the dev segments of a finished run of raykd.train_mlm; else random weights and random tokens,
good for times but not for differences. `one by one` is the published way: a pass over the batch for each position.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from raykd.config import load_mlm_config
from raykd.data.batches import TextCollate
from raykd.data.corpus import read_rows
from raykd.data.text_corpus import prepare_text
from raykd.models.masked_lm import MaskedLm, load_masked_lm, new_masked_lm
from raykd.training.cluster import connect

PASSES = (4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=44)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model, tokens_BT, lengths_B = from_run(options) if options.run else random_batch(options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, tokens_BT, lengths_B = model.to(device).requires_grad_(False), tokens_BT.to(device), lengths_B.to(device)
    ways: dict[str, Callable[[], Tensor]] = {
        "one by one": lambda: one_by_one(model, tokens_BT, lengths_B),
        "exact": lambda: model.exact_states(tokens_BT, lengths_B),
        **{f"fast, {p} passes": lambda p=p: model.fast_states(tokens_BT, lengths_B, p) for p in PASSES},  # type: ignore[misc]
    }
    size = f"{len(model.layers)} layers, width {model.embedding.embedding_dim}"
    print(f"\n{size}, {len(tokens_BT)} sequences of {float(lengths_B.float().mean()):.1f} tokens, {device}\n")
    print("| way | ms a batch | against one by one | KL to exact, nats | same first guess |\n|---|--:|--:|--:|--:|")
    positions_T = torch.arange(tokens_BT.shape[1], device=device)
    wanted_BT = (positions_T > 0) & (positions_T < lengths_B[:, None])
    first, exact_NV = 0.0, None
    for name, way in ways.items():
        seconds, states_BTD = timed(way, options.repeats)
        first = first or seconds
        logs_NV = (states_BTD[wanted_BT] @ model.embedding.weight.T).log_softmax(-1)
        exact_NV = logs_NV if exact_NV is None else exact_NV
        divergence = float((exact_NV.exp() * (exact_NV - logs_NV)).sum(-1).mean())
        same = float((exact_NV.argmax(-1) == logs_NV.argmax(-1)).float().mean())
        print(f"| {name} | {1000 * seconds:.0f} | {first / seconds:.1f} x | {max(0.0, divergence):.2g} | {100 * same:.1f} % |")


def random_batch(options: argparse.Namespace) -> tuple[MaskedLm, Tensor, Tensor]:
    model = new_masked_lm(51_865, options.width, options.layers, 50_337, seed=0)
    lengths_B = torch.full((options.batch_size,), options.tokens)
    return model, torch.randint(0, 50_000, (options.batch_size, options.tokens)), lengths_B


def from_run(options: argparse.Namespace) -> tuple[MaskedLm, Tensor, Tensor]:
    connect()
    corpus = prepare_text(load_mlm_config(f"{options.run}/config.yaml").text, f"{options.run}/mlm")
    index = corpus.index("dev")
    place = index.shard[: options.batch_size], index.row[: options.batch_size]
    rows = read_rows(corpus.path, index.shard_names, *place, corpus.rows_per_batch)
    batch = TextCollate(corpus.pad_id, None, seed=0).batch(rows, epoch=0)
    return load_masked_lm(f"{options.run}/mlm"), batch.tokens_BT, batch.lengths_B


def one_by_one(model: MaskedLm, tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
    states_BTD = torch.zeros(*tokens_BT.shape, model.embedding.embedding_dim, device=tokens_BT.device)
    for position in range(1, tokens_BT.shape[1]):
        masked_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
        masked_BT[:, position] = True
        states_BTD[:, position] = model(model.masked(tokens_BT, masked_BT), lengths_B)[:, position]
    return states_BTD


def timed(way: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """The fastest of some runs, after one to warm up."""
    best, states_BTD = float("inf"), way()
    for _ in range(repeats):
        begin = now()
        states_BTD = way()
        best = min(best, now() - begin)
    return best, states_BTD


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
