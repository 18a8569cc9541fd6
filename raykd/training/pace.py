"""How fast a worker is: rows and tokens a second, time that it waited for data, and the share of the floor.

The floor of a step is its matrix products at the speed at which this device takes one large product: what no arrangement of the
same arithmetic can be faster than. The products are counted as they are computed in the first step, by the rules of
`torch.utils.flop_counter`, so they are those of this method, teacher and padding included; later steps are reckoned by their
number of rows.
"""

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from raykd.data.stream import StepBatches
from raykd.parts.timing import part

_LEAST_S = 0.02
"""Shortest time that a product is measured in."""


class Pace:
    """Of one worker. Each time goes from one step's end to the next's; a checkpoint in between counts to the later step."""

    def __init__(self, device: torch.device, dtype: torch.dtype, unit: str) -> None:
        """`dtype`: what most products are taken in; `unit`: what a row is."""
        self._device, self._dtype, self._unit = device, dtype, unit
        self._steps = 0
        self._rate = 0.0
        self._flops_per_row = 0.0
        self._last = time.monotonic()
        self._waited = 0.0

    def batches(self, batches: Iterable[StepBatches]) -> Iterator[StepBatches]:
        """The batches, with the time noted that they were waited for."""
        source = iter(batches)
        while True:
            began = time.monotonic()
            with part("data"):
                batch = next(source, None)
            self._waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def counted(self, step: Callable[[StepBatches], dict[str, Any]], batches: StepBatches) -> dict[str, Any]:
        """What the step gives. The first one's products are counted.

        The device is measured before the steps 1, 2, 4, 8 and so on, and its best counts: while processes still start beside
        it, it is slower than it is.
        """
        self._steps += 1
        if self._steps & (self._steps - 1) == 0:
            self._rate = max(self._rate, product_rate(self._device, self._dtype))
        if self._steps > 1:
            return step(batches)
        rows = sum(len(batch.ids) for batch in batches.micro)
        # What is compiled first runs as it is: Dynamo would leave it so for good if it first met it under a dispatch mode.
        with torch.compiler.set_stance("force_eager"), _Products() as counter:
            record = step(batches)
        self._flops_per_row = counter.flops / max(1, rows)
        return record

    def of_step(self, record: dict[str, Any], batches: StepBatches) -> dict[str, float]:
        """`seconds`, rows and tokens a second, `data_wait` and `floor_share` from 0 to 1, and `memory_gb` at its peak."""
        now = time.monotonic()
        seconds, self._last = max(now - self._last, 1e-9), now
        waited, self._waited = self._waited, 0.0
        rows = sum(len(batch.ids) for batch in batches.micro)
        floor = rows * self._flops_per_row / (self._rate or 1.0)
        return {
            "seconds": seconds,
            f"{self._unit}_per_s": record[self._unit] / seconds,
            "tokens_per_s": record["tokens"] / seconds,
            "data_wait": min(1.0, waited / seconds),
            "floor_share": floor / seconds,
            "memory_gb": peak_memory(self._device) / 1e9,
        }


_ATEN = torch.ops.aten
_RULES = {
    **flop_registry,
    # PyTorch has no rule for a CPU's attention kernel; it computes what the GPU's does.
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATEN._scaled_dot_product_flash_attention],
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _ATEN._scaled_dot_product_flash_attention_backward
    ],
}


class _Products(TorchDispatchMode):
    """Counts by the rules of PyTorch. Its `FlopCounterMode` also hooks every module, which broke the gradient of `akd`."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        rule = _RULES.get(func._overloadpacket)
        if rule is not None:
            self.flops += rule(*args, **(kwargs or {}), out_val=out)
        return out


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second in one large matrix product, with the threads that this process has: the best of some."""
    size = 8192 if device.type == "cuda" else 768
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, spent = 0.0, 0.0
    for number in range(20):
        seconds = _seconds(lambda: a @ b, device)
        best = max(best, 2 * size**3 / seconds)
        spent += seconds
        if number >= 3 and spent > _LEAST_S:
            break
    return best


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(time.perf_counter() - began, 1e-9)


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, on a CPU of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
