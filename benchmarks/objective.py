"""The chunked objective against the plain PyTorch way on the same inputs: time, memory and error. Prints Markdown tables.

    python benchmarks/objective.py                        # the comparison, at the default chunk size
    python benchmarks/objective.py --sweep 16,32,64,128   # time of several chunk sizes

The work is Distil-Whisper's: 0.8 * CE + KL at temperature 2 against a teacher given by its hidden states and output head, over
Whisper's 51 865 tokens, value and gradients of the student's hidden states and output head. The plain way is whole logits,
`cross_entropy`, `kl_div` and automatic differentiation.

Time: processor time of the process, page faults included, so that other load on the machine counts little; the ways take turns
in one process, and the ratio is the median of the rounds' ratios. Memory: each way runs in a process of its own; what counts is
how far the peak resident size (Linux' VmHWM) rises above the inputs' own, which includes the allocator's and the matrix
library's buffers. It is given whole, and without the two gradients that either way must return. Error: largest difference from
the plain way in float64, which runs on a few tokens at a time and is summed, over the largest value.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from raykd.data.batches import Batch
from raykd.parts.clock import Clock
from raykd.parts.distribution import HeadDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl
from raykd.training.objective import ActiveTerm, default_chunk_tokens, objective

V = 51_865
TEMPERATURE = 2.0
LAMBDA_CE, LAMBDA_KL = 0.8, 1.0
TERMS = [
    ActiveTerm(Ce(), LAMBDA_CE),
    ActiveTerm(Kl(student_temperature=TEMPERATURE, target_temperature=TEMPERATURE), LAMBDA_KL),
]
SIZES = [(256, 128), (1024, 128), (2048, 128), (256, 384), (1024, 384), (2048, 384), (256, 1280)]
MIB = 2**20
CPU = torch.device("cpu")


@dataclass
class Inputs:
    hidden_ND: Tensor
    weight_VD: Tensor
    labels_N: Tensor
    teacher_ND: Tensor
    teacher_VD: Tensor

    @classmethod
    def random(cls, tokens: int, width: int) -> "Inputs":
        """Logits of standard deviation 3. Scaled in place: making the inputs must not need more memory than they take."""
        generator = torch.Generator().manual_seed(0)
        normal = [torch.randn(size, width, generator=generator) for size in (tokens, V, tokens, V)]
        hidden_ND, weight_VD, teacher_ND, teacher_VD = normal
        for weight in (weight_VD, teacher_VD):
            weight.mul_(3 / width**0.5)
        labels_N = torch.randint(0, V, (tokens,), generator=generator)
        return cls(hidden_ND.requires_grad_(), weight_VD.requires_grad_(), labels_N, teacher_ND, teacher_VD)

    def part(self, tokens: slice) -> "Inputs":
        hidden_ND = self.hidden_ND[tokens].detach().requires_grad_()
        return Inputs(hidden_ND, self.weight_VD, self.labels_N[tokens], self.teacher_ND[tokens], self.teacher_VD)


def plain(inputs: Inputs) -> Tensor:
    with torch.no_grad():
        teacher_NV = functional.softmax(inputs.teacher_ND @ inputs.teacher_VD.T / TEMPERATURE, dim=-1)
    logits_NV = inputs.hidden_ND @ inputs.weight_VD.T
    ce = functional.cross_entropy(logits_NV, inputs.labels_N, reduction="sum")
    kl = functional.kl_div(functional.log_softmax(logits_NV / TEMPERATURE, dim=-1), teacher_NV, reduction="sum")
    loss = LAMBDA_CE * ce + LAMBDA_KL * TEMPERATURE**2 * kl
    loss.backward()
    return loss.detach()


def chunked(inputs: Inputs, chunk_tokens: int | None = None) -> Tensor:
    student, teacher = Outputs(hidden_ND=inputs.hidden_ND), Outputs(HeadDistribution(inputs.teacher_ND, inputs.teacher_VD))
    labels_BU = inputs.labels_N[None]
    batch = Batch([], [], torch.empty(0), labels_BU, labels_BU, audio_s=0.0)
    loss, _ = objective(student, inputs.weight_VD, batch, {"teacher": teacher}, TERMS, Clock(0, 1), chunk_tokens)
    loss.backward()
    return loss.detach()


def gradients(inputs: Inputs, way: Callable[[Inputs], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients."""
    inputs.hidden_ND.grad = inputs.weight_VD.grad = None
    loss = way(inputs)
    assert inputs.hidden_ND.grad is not None
    assert inputs.weight_VD.grad is not None
    return loss, inputs.hidden_ND.grad, inputs.weight_VD.grad


def seconds(inputs: Inputs, way: Callable[[Inputs], Tensor]) -> float:
    inputs.hidden_ND.grad = inputs.weight_VD.grad = None
    start = time.process_time()
    way(inputs)
    return time.process_time() - start


def reference(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The plain way in float64, 32 tokens at a time."""
    tensors = (inputs.hidden_ND, inputs.weight_VD, inputs.teacher_ND, inputs.teacher_VD)
    hidden_ND, weight_VD, teacher_ND, teacher_VD = (tensor.detach().double() for tensor in tensors)
    exact = Inputs(hidden_ND, weight_VD.requires_grad_(), inputs.labels_N, teacher_ND, teacher_VD)
    loss, hidden_grads = torch.zeros((), dtype=torch.float64), []
    for start in range(0, len(inputs.labels_N), 32):
        part = exact.part(slice(start, start + 32))
        loss += plain(part)
        assert part.hidden_ND.grad is not None
        hidden_grads.append(part.hidden_ND.grad)
    assert weight_VD.grad is not None
    return loss, torch.cat(hidden_grads), weight_VD.grad


def errors(inputs: Inputs, exact: tuple[Tensor, ...], way: Callable[[Inputs], Tensor]) -> list[float]:
    """Relative errors of the loss and of both gradients."""
    got = gradients(inputs, way)
    return [float((one - wanted).abs().max() / wanted.abs().max()) for one, wanted in zip(got, exact, strict=True)]


def peak_rise(way: str, tokens: int, width: int, threads: int) -> int:
    """Bytes by which one way's peak resident size rises above its inputs', in a process of its own."""
    arguments = ["--measure", way, "--tokens", str(tokens), "--width", str(width), "--threads", str(threads)]
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return int(done.stdout)


def print_peak_rise(way: str, tokens: int, width: int) -> None:
    function = {"plain": plain, "chunked": chunked}[way]
    inputs = Inputs.random(tokens, width)
    small = torch.randn(4, 4, requires_grad=True)
    (small @ small).softmax(-1).sum().backward()  # loads the libraries
    before = peak_resident()
    function(inputs)
    print(peak_resident() - before)


def peak_resident() -> int:
    """Bytes. Not `ru_maxrss`, which a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def compare(sizes: list[tuple[int, int]], rounds: int, threads: int) -> None:
    columns = "tokens, width, chunk, plain s, chunked s, time ratio, plain MiB, chunked MiB, memory ratio, without gradients"
    columns += ", loss error, hidden gradient error, weight gradient error"
    print(f"torch {torch.__version__}, {threads} thread(s), float32, V={V}")
    print()
    print(f"| {columns.replace(', ', ' | ')} |")
    print("|--:" * len(columns.split(", ")) + "|")
    for tokens, width in sizes:
        peaks = [peak_rise(way, tokens, width, threads) for way in ("plain", "chunked")]
        returned = 4 * width * (tokens + V)
        inputs = Inputs.random(tokens, width)
        wrong = errors(inputs, reference(inputs), chunked)
        times = [(seconds(inputs, plain), seconds(inputs, chunked)) for _ in range(rounds)]
        fastest = [min(column) for column in zip(*times, strict=True)]
        cells = [f"{tokens}", f"{width}", f"{default_chunk_tokens(width, CPU)}", f"{fastest[0]:.2f}", f"{fastest[1]:.2f}"]
        cells.append(f"{statistics.median(ours / theirs for theirs, ours in times):.2f}")
        cells += [f"{peak / MIB:.0f}" for peak in peaks]
        cells += [f"{peaks[1] / peaks[0]:.2f}", f"{(peaks[1] - returned) / (peaks[0] - returned):.2f}"]
        cells += [f"{error:.1e}" for error in wrong]
        print("| " + " | ".join(cells) + " |", flush=True)


def sweep(sizes: list[tuple[int, int]], chunk_sizes: list[int], rounds: int, threads: int) -> None:
    print(f"torch {torch.__version__}, {threads} thread(s), float32, V={V}; seconds, fastest of {rounds}, by tokens to a chunk")
    print()
    print("| tokens | width | plain | " + " | ".join(map(str, chunk_sizes)) + " |")
    print("|--:|--:|--:|" + "--:|" * len(chunk_sizes))
    for tokens, width in sizes:
        inputs = Inputs.random(tokens, width)
        ways = [plain, *(lambda inputs, size=size: chunked(inputs, size) for size in chunk_sizes)]
        times = [[seconds(inputs, way) for way in ways] for _ in range(rounds)]
        print(
            f"| {tokens} | {width} | " + " | ".join(f"{min(column):.2f}" for column in zip(*times, strict=True)) + " |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="The chunked objective against the plain PyTorch way.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, help="only this many tokens")
    parser.add_argument("--width", type=int, help="only this width")
    parser.add_argument("--sweep", metavar="SIZES", help="time these chunk sizes instead, such as 16,32,64")
    parser.add_argument("--measure", choices=["plain", "chunked"], help="print the rise of one way's peak memory, in bytes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        print_peak_rise(arguments.measure, arguments.tokens, arguments.width)
        return
    sizes = [
        (tokens, width) for tokens, width in SIZES if arguments.tokens in (None, tokens) and arguments.width in (None, width)
    ]
    if arguments.sweep:
        sweep(sizes, [int(size) for size in arguments.sweep.split(",")], arguments.rounds, arguments.threads)
    else:
        compare(sizes, arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
