"""raykd's commands as a user runs them: in a process of their own, with a Ray of their own, or here, on the session's."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path


def start(module: str, config: Path | str, *arguments: str, folder: Path | None = None) -> subprocess.Popen[str]:
    """`python -m raykd.MODULE --config CONFIG ...` with a process group and a Ray of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in {"RAY_ADDRESS", "MLFLOW_TRACKING_URI"}}
    return subprocess.Popen(
        [sys.executable, "-m", f"raykd.{module}", "--config", str(config), *arguments],
        cwd=folder,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run_here(module: str, config: Path | str, *arguments: str, folder: Path | str = ".") -> str:
    """The same in this process, whose Ray (`ray_local`) has warm workers; what it prints."""
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        importlib.import_module(f"raykd.{module}").main(["--config", str(config), *arguments])
    return said.getvalue()
