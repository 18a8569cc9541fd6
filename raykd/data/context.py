"""Ray Data settings of our datasets."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext, ExecutionOptions, ExecutionResources


@contextmanager
def ray_data_settings(object_store_bytes: int | None = None, block_bytes: int | None = None) -> Iterator[None]:
    """Datasets made inside keep the order of their rows and show no progress bars.

    Args:
        object_store_bytes: most object store memory that one dataset's blocks take; None: Ray's own limit.
        block_bytes: most bytes of a block; None: Ray's own limit.
    """
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    limits = ExecutionResources.for_limits(object_store_memory=object_store_bytes)
    context.execution_options = ExecutionOptions(preserve_order=True, resource_limits=limits)
    if block_bytes is not None:
        context.target_max_block_size = block_bytes
    with DataContext.current(context):
        yield
