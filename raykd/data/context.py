"""Ray Data settings of our datasets."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext, ExecutionOptions


@contextmanager
def ray_data_settings() -> Iterator[None]:
    """Datasets made inside keep the order of their rows and show no progress bars."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options = ExecutionOptions(preserve_order=True)
    with DataContext.current(context):
        yield
