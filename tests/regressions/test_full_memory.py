"""A worker that Ray ended because memory was full was told with a sentence from the middle of Ray's advice."""

import pytest
from ray.exceptions import OutOfMemoryError

from raykd.training.shell import _first_cause


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("Task was killed due to the node running low on memory.\nRefer to the documentation on how to ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation for Memory Management"),
    ],
)
def test_full_memory_is_told_with_what_to_do(error: Exception) -> None:
    assert "lower train.micro_batch_size" in _first_cause(error)
    assert _first_cause(ValueError("step 3\nloss is not finite")) == "loss is not finite"
