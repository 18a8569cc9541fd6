"""Our own reading as Ray Datasets: one task for each function that yields tables."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

Read = Callable[[], Iterable[pa.Table]]
"""A `partial` of plain data and not a closure, so that a task holds what it reads and nothing else."""


def dataset_of_tasks(reads: Sequence[Read], **options: Any) -> ray.data.Dataset:
    """What the functions yield, in their order under `ray_data_settings`; `options` of `ray.data.read_datasource`."""
    return ray.data.read_datasource(_Tasks(reads), override_num_blocks=len(reads), **options)


class _Tasks(Datasource):
    def __init__(self, reads: Sequence[Read]) -> None:
        super().__init__()
        self._reads = reads

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before reading."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task for each function, whatever the parallelism."""
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(read, metadata, per_task_row_limit=per_task_row_limit) for read in self._reads]
