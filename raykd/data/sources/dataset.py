"""Parts of sources as one Ray Dataset: the only place here that knows Ray."""

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import ray.data

from raykd.data.sources.part import Part
from raykd.data.tasks import dataset_of_tasks
from raykd.data.utterances import tables


def dataset_of(parts: Sequence[Part]) -> ray.data.Dataset:
    """The rows of the parts, in their order when Ray Data's `preserve_order` is set; a task for each part, in small blocks."""
    return dataset_of_tasks([partial(_read, part) for part in parts])


def _read(part: Part) -> Iterator[pa.Table]:
    return tables(part.rows())
