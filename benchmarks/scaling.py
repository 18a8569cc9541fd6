"""An epoch on 1 to 512 GPUs, reckoned from measured parts and stated bandwidths: what begins to bind where.

    python benchmarks/scaling.py [--hours 10000] [--windows-per-s 106.5] [--read-per-core 1000]
    python benchmarks/scaling.py --order        # the order of that corpus, really made: memory and time of a worker

Nothing of the table is measured at that size: it is arithmetic on the numbers that are its options, whose defaults are
RESULTS.md's (one H100, large-v2's shape to 32 + 2 layers, 64 windows a step and GPU) and data sheets' (bandwidths, given as
bytes a second that one GPU gets). Times are not hidden behind one another, but for data, which is read ahead: it binds only
where the machines' cores read fewer windows than the GPUs want.

`--order` is no arithmetic: the index is synthetic, the code that shuffles and shares it out is the one that trains.
"""

import argparse
import time
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raykd.data.batches import collate
from raykd.data.corpus import Index, Utterance
from raykd.data.order import EpochOrder

WINDOW_S = 30.0
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Machine:
    """What the parts take, on one GPU and on the way between GPUs."""

    windows_per_s: float
    windows_per_step: int
    read_per_core: float
    """Prepared windows a second that one core reads."""
    cores_per_gpu: int
    gpus_per_node: int
    gradients: float
    """Bytes of gradients and, after the update, of parameters that every step exchanges."""
    inside: float
    """Bytes a second and GPU, between the GPUs of a node."""
    between: float
    """Bytes a second and GPU, between nodes."""
    evaluated: int
    """Utterances that are decoded at each evaluation, by one GPU for each node's worth of them."""
    evaluated_per_s: float
    """Utterances a second that one GPU decodes."""
    evaluations: int
    """In an epoch."""
    checkpoint: float
    """Bytes."""
    storage: float
    """Bytes a second that one worker writes."""
    checkpoints: int
    """In an epoch."""


@dataclass(frozen=True)
class Epoch:
    """Seconds by what they go into."""

    compute: float
    gradients: float
    data: float
    """Beyond what is hidden behind the rest."""
    evaluation: float
    checkpoints: float

    @property
    def total(self) -> float:
        return self.compute + self.gradients + self.data + self.evaluation + self.checkpoints

    @property
    def binds(self) -> str:
        """What takes most beside computing, where that is a tenth or more."""
        others = {name: value for name, value in vars(self).items() if name != "compute"}
        name = max(others, key=lambda one: others[one])
        return name if others[name] >= 0.1 * self.total else "-"


def epoch(machine: Machine, hours: float, gpus: int) -> Epoch:
    """Reckoned."""
    windows = hours * 3600 / WINDOW_S
    compute = windows / (gpus * machine.windows_per_s)
    steps = windows / (gpus * machine.windows_per_step)
    bandwidth = machine.inside if gpus <= machine.gpus_per_node else machine.between
    # Reduce-scatter of gradients and all-gather of parameters (ZeRO 1 and 2): each moves (n - 1) / n of the bytes.
    gradients = steps * 2 * machine.gradients * (gpus - 1) / gpus / bandwidth
    read = windows / (gpus * machine.cores_per_gpu * machine.read_per_core)
    evaluation = machine.evaluations * machine.evaluated / (machine.evaluated_per_s * gpus)
    checkpoints = machine.checkpoints * machine.checkpoint / machine.storage
    return Epoch(compute, gradients, max(0.0, read - compute - gradients), evaluation, checkpoints)


HEADER = (
    *("GPUs", "minutes an epoch", "of one GPU's speed", "gradients", "data", "evaluation", "checkpoints"),
    *("cores that read", "binds"),
)


def print_table(machine: Machine, hours: float) -> None:
    print(f"{hours:,.0f} hours in windows of {WINDOW_S:.0f} s; reckoned, not measured, but for reading:")
    print(f"one core of this machine puts {machine.read_per_core:,.0f} prepared windows a second into batches\n")
    print(f"| {' | '.join(HEADER)} |\n|{'--:|' * 8}---|")
    alone = epoch(machine, hours, 1).total
    for gpus in GPUS:
        one = epoch(machine, hours, gpus)
        shares = [f"{100 * part / one.total:.1f} %" for part in (one.gradients, one.data, one.evaluation, one.checkpoints)]
        cores = gpus * machine.windows_per_s / machine.read_per_core
        speed = f"{100 * alone / one.total / gpus:.0f} %"
        print(f"| {gpus} | {one.total / 60:.1f} | {speed} | {' | '.join(shares)} | {cores:.1f} | {one.binds} |")


def print_order(hours: float, batch_size: int, workers: int) -> None:
    """Makes the index of a corpus of 10 s utterances, and what a worker of many asks of it."""
    rows = round(hours * 3600 / 10)
    ids = pa.array(np.char.add("utterance-", np.arange(rows).astype("U9")))
    columns = {
        "id": ids,
        "language": pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["cs"]),
        "n_tokens": pa.array(np.random.default_rng(0).integers(10, 100, rows), pa.int32()),
        "n_utterances": pa.array(np.ones(rows), pa.int32()),
    }
    index = Index(pa.table(columns))
    tracemalloc.start()
    began = time.perf_counter()
    order = EpochOrder(index, 0, batch_size)
    first = order.global_batch(0)
    made = time.perf_counter() - began
    began = time.perf_counter()
    for step in range(1000):
        order.global_batch(step)[:: max(1, batch_size // workers)]
    thousand = time.perf_counter() - began
    began = time.perf_counter()
    order.global_batch(order.steps_per_epoch)
    turn = time.perf_counter() - began
    _, peak = tracemalloc.get_traced_memory()
    print(f"{rows:,} utterances ({hours:,.0f} h), batches of {batch_size}: {order.steps_per_epoch:,} steps an epoch")
    print(f"first step {made:.2f} s, 1 000 steps {1000 * thousand:.0f} ms, next epoch {turn:.2f} s")
    print(
        f"{peak / 1e6:.0f} MB at the peak beside the index; a permutation is {8 * rows / 1e6:.0f} MB; {len(first)} rows a step"
    )


def read_rate(batch_size: int = 64, attempts: int = 5) -> float:
    """Windows a second that one core puts into batches, measured: the largest part of reading prepared rows."""
    mel_MF = np.zeros((80, round(100 * WINDOW_S)), np.float16)
    utterance = Utterance("a", "cs", "a", WINDOW_S, mel_MF, list(range(100)))
    best = 0.0
    for _ in range(attempts):
        began = time.perf_counter()
        collate([utterance] * batch_size, mel_MF.shape[1], 0)
        best = max(best, batch_size / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10_000)
    parser.add_argument("--windows-per-s", type=float, default=106.5, help="of one GPU, measured by training_step.py")
    parser.add_argument("--windows-per-step", type=int, default=64, help="of one GPU")
    parser.add_argument("--read-per-core", type=float, help="prepared windows a second; without it this machine is measured")
    parser.add_argument("--cores-per-gpu", type=int, default=12)
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--trained", type=float, default=119e6, help="parameters")
    parser.add_argument("--inside", type=float, default=300e9, help="bytes a second and GPU inside a node")
    parser.add_argument("--between", type=float, default=40e9, help="bytes a second and GPU between nodes (400 Gbit/s each)")
    parser.add_argument("--storage", type=float, default=1e9, help="bytes a second that one worker writes")
    parser.add_argument("--evaluations", type=int, default=4, help="in an epoch, of 2 000 utterances at 20 a second and GPU")
    parser.add_argument("--order", action="store_true", help="make the order of the corpus instead")
    options = parser.parse_args()
    if options.order:
        print_order(options.hours, options.windows_per_step * options.gpus_per_node, options.gpus_per_node)
        return
    machine = Machine(
        windows_per_s=options.windows_per_s,
        windows_per_step=options.windows_per_step,
        read_per_core=options.read_per_core or read_rate(),
        cores_per_gpu=options.cores_per_gpu,
        gpus_per_node=options.gpus_per_node,
        gradients=4 * options.trained,
        inside=options.inside,
        between=options.between,
        evaluated=2000,
        evaluated_per_s=20,
        evaluations=options.evaluations,
        checkpoint=12 * options.trained,
        storage=options.storage,
        checkpoints=options.evaluations,
    )
    print_table(machine, options.hours)


if __name__ == "__main__":
    main()
