"""Parts of sources as one Ray Dataset: the only place here that knows Ray."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray.data
from ray.data.block import BlockMetadata
from ray.data.context import DataContext
from ray.data.datasource import Datasource, ReadTask

from raykd.data.sources.part import Part
from raykd.data.utterances import SCHEMA, tables


class UtteranceDatasource(Datasource):
    """A read task for each part; each streams its rows out in small blocks."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self._parts = parts

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before reading."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task for each part, in order, whatever the parallelism."""
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(_Read(part), metadata, SCHEMA, per_task_row_limit) for part in self._parts]


class _Read:
    """Reads a part. A class and not a closure, so that the task holds its own part and nothing else."""

    __name__ = "read_part"

    def __init__(self, part: Part) -> None:
        self._part = part

    def __call__(self) -> Iterator[pa.Table]:
        return tables(self._part.rows())


def dataset_of(parts: Sequence[Part]) -> ray.data.Dataset:
    """The rows of the parts, in their order when Ray Data's `preserve_order` is set."""
    return ray.data.read_datasource(UtteranceDatasource(parts), override_num_blocks=len(parts))
