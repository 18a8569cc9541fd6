"""DeepSpeed without its chatter."""

import logging
import os

import torch


def name_accelerator() -> None:
    """Tell DeepSpeed, which transformers imports too, what it would say aloud that it found: no GPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def prepare_deepspeed() -> None:
    """Keep DeepSpeed's chatter out of the logs, and keep it from compiling.

    On CPUs it would build a shared-memory all-reduce at first use, which needs a compiler and which only its inference engine
    calls.
    """
    os.environ.setdefault("DS_LOG_LEVEL", "warning")

    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
