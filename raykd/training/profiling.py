"""A profile of some steps: what each part of a step takes, and PyTorch's own trace."""

from contextlib import ExitStack
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from raykd import storage
from raykd.parts.timing import PartTimer, timing

WARM_UP = 3
"""Steps before the ones that are profiled: first steps compile, allocate and count."""
TRACE = "trace.json.gz"
"""For https://ui.perfetto.dev or chrome://tracing."""


class Profile:
    """Of this process, from `begin` to `end`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open = ExitStack()
        self._profiler: profile | None = None
        self._timer: PartTimer | None = None

    def begin(self) -> None:
        """From here on."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device.type == "cuda" else [])]
        self._profiler = self._open.enter_context(profile(activities=activities))
        self._timer = self._open.enter_context(timing(self._device))

    def end(self, folder: str) -> dict[str, float]:
        """Seconds by part; PyTorch's trace is written into a folder, local or remote. Nothing where it never began."""
        if self._profiler is None or self._timer is None:
            return {}
        self._open.close()
        with storage.temporary_dir() as here:
            path = Path(here, TRACE)
            self._profiler.export_chrome_trace(str(path))
            storage.write_bytes(storage.join(folder, TRACE), path.read_bytes())
        return dict(self._timer.seconds)
