"""`ray job submit` against a cluster of our own: what is uploaded, and that raykd runs from the upload."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).parent / "ray")
TOKEN = secrets.token_hex(32)
BALLAST = [
    "runs/a/student/model.bin",
    "cache/corpora/a/index.bin",
    "mlruns/a.bin",
    "mlflow.db",
    ".git/objects/a",
    ".venv/bin/python3",
]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _environment() -> dict[str, str]:
    """Ours without any other Ray cluster in it, with this Python first on the path and a token for this cluster alone."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def _answers(address: str) -> bool:
    request = urllib.request.Request(f"{address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End this `ray start --block` and everything it started; other clusters on the machine are left alone."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(family, timeout=30)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The dashboard address of a cluster made by `ray start --head`, with ports and a session folder of its own."""
    folder = tempfile.mkdtemp(prefix="rk-")  # short: Ray's sockets lie below it and their paths may have 107 characters
    names = ["port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [RAY, "start", "--head", "--block", "--disable-usage-stats", f"--temp-dir={folder}"]
    command += ["--num-cpus=2", f"--object-store-memory={200 * 2**20}", "--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    with open(Path(folder) / "ray-start.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(), start_new_session=True)
    try:
        give_up = time.monotonic() + 120
        while not _answers(address):
            said = (Path(folder) / "ray-start.log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < give_up, said
            time.sleep(0.5)
        yield address
    finally:
        if process.poll() is None:
            _kill(process)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with what lies about after some runs: 8 MB in each of the folders that must stay at home."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("raykd", "configs", "cluster"):
        shutil.copytree(ROOT / name, folder / name)
    for name in (".gitignore", ".rayignore", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in BALLAST:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(8 * 2**20))
    return folder


def _submit(cluster: str, working_dir: Path, *entrypoint: str) -> subprocess.CompletedProcess[str]:
    """`ray job submit`, which waits for the job and exits like it; its output holds the job's."""
    command = [RAY, "job", "submit", "--address", cluster, "--working-dir", str(working_dir), "--", *entrypoint]
    return subprocess.run(command, env=_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)


def test_only_code_and_configs_are_uploaded(cluster: str, working_dir: Path) -> None:
    script = (
        "import pathlib, raykd\n"
        "for path in sorted(pathlib.Path('.').rglob('*')):\n"
        "    if path.is_file() and '__pycache__' not in path.parts:\n"
        "        print('uploaded', path, path.stat().st_size)\n"
        "print('imported', pathlib.Path(raykd.__file__).parent.parent == pathlib.Path.cwd())\n"
    )
    (working_dir / "configs" / "list_files.py").write_text(script)
    done = _submit(cluster, working_dir, "python", "-c", "exec(open('configs/list_files.py').read())")
    assert done.returncode == 0, done.stdout
    assert "imported True" in done.stdout
    sizes = {line.split()[1]: int(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("uploaded ")}
    assert {"raykd/cli.py", "raykd/config/load.py", "configs/quickstart.yaml", "constraints.txt"} <= set(sizes)
    assert not [path for path in sizes if path in BALLAST or path.startswith("cluster/")]
    assert sum(sizes.values()) < 2 * 2**20


def test_the_quickstart_runs_as_a_job(cluster: str, working_dir: Path, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    """The README's command, made short: a minute of speech, a tiny teacher, three steps."""
    shorter = [
        f"output_dir={tmp_path}/runs",
        f"data.cache_dir={tmp_path}/cache",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        f"teacher.model={tiny_whisper_dir}",
        "data.source={kind: demo, hours: 0.02, kinds: [number]}",
        "train.steps=3",
        "train.warmup_steps=0",
        "train.eval_every=3",
        "evaluation.max_new_tokens=8",
        "tracking.log_model=false",
    ]
    done = _submit(cluster, working_dir, "python", "-m", "raykd.distill", "--config", "configs/quickstart.yaml", *shorter)
    assert done.returncode == 0, done.stdout
    run = tmp_path / "runs" / "quickstart"
    assert f"student  {run}/student" in done.stdout
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["train"]["steps"] == 3
    assert (run / "student" / "model.safetensors").exists()


def test_a_language_model_is_trained_as_a_job(cluster: str, working_dir: Path, tmp_path: Path) -> None:
    """Relative text paths would lead into the job's copy of the folder, so the text is given absolutely."""
    text = tmp_path / "cs.txt"
    text.write_text("".join(f"věta číslo {number} má sedm slov celkem\n" for number in range(60)), encoding="utf-8")
    shorter = [
        f"output_dir={tmp_path}/runs",
        f"text.cache_dir={tmp_path}/cache",
        f"text.source={text}",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        "mlm={width: 16, layers: 1}",
        "train={steps: 2, batch_size: 8}",
    ]
    done = _submit(cluster, working_dir, "python", "-m", "raykd.train_mlm", "--config", "configs/mlm_czech.yaml", *shorter)
    assert done.returncode == 0, done.stdout
    run = tmp_path / "runs" / "mlm-czech"
    assert f"mlm      {run}/mlm" in done.stdout
    assert json.loads((run / "metrics.json").read_text())["train"]["steps"] == 2
    assert (run / "mlm" / "words.txt.gz").exists()
