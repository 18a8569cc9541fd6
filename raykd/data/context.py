"""Ray Data settings of our datasets."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext, ExecutionOptions


@contextmanager
def ray_data_settings(block_a_row: bool = False) -> Iterator[None]:
    """Datasets made inside keep the order of their rows and show no progress bars.

    `block_a_row`: for rows of about a megabyte; each is passed on by itself as soon as it is there, not collected to 128 MiB.
    """
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if block_a_row:
        context.target_max_block_size = 1
    context.execution_options = ExecutionOptions(preserve_order=True)
    with DataContext.current(context):
        yield
