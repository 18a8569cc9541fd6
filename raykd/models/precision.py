"""Which floating type a model computes in."""

import torch


def compute_dtype(choice: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; `auto` is bfloat16 where the device multiplies it in hardware, else float32.

    GPUs from Ampere on do, and CPUs with AVX512-BF16 or AMX (the output head of a small student: 8 times faster than float32).
    On other CPUs bfloat16 is several times slower than float32 (benchmarks/RESULTS.md).
    """
    if choice == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.bfloat16 if choice == "bfloat16" else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware. A CPU is this process's own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
