"""The README's first command, as a user runs it, on two minutes of speech: what it says and what it leaves behind."""

import contextlib
import io
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from raykd.config import load_config
from raykd.data.rejects import REJECT_COLUMNS
from raykd.errors import UserError
from raykd.export import main as export
from raykd.training.checkpoint import list_checkpoints, step_of
from tests.ray.commands import run_here, start

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # the two runs count for the first test, and the machine may be busy
CONFIG = "configs/quickstart.yaml"
STEPS = 6
SHORTER = [f"train.steps={STEPS}", "train.warmup_steps=0", "train.eval_every=3", "evaluation.max_new_tokens=8"]
SHORTER += ["data.source.hours=0.02", "evaluation.speed_utterances=2", "tracking.log_every=2"]


@dataclass(frozen=True)
class Runs:
    """The same command, run twice in the same folder."""

    folder: Path
    first: str
    """What the terminal said."""
    second: str
    cache: dict[Path, int]
    """Times of change of the cached files after the first run."""

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "quickstart"

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.run / "metrics.json").read_text())

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"


def quickstart(folder: Path) -> str:
    process = start("distill", CONFIG, *SHORTER, folder=folder)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    return said


def changed_at(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Runs:
    """The shipped configs, with a teacher that is smaller and trained for two steps."""
    folder = tmp_path_factory.mktemp("quickstart")
    shutil.copytree(ROOT / "configs", folder / "configs")
    teacher = yaml.safe_load((folder / "configs" / "quickstart_teacher.yaml").read_text())
    teacher["data"]["source"]["hours"] = 0.02
    teacher["student"]["scratch"] |= {"width": 32, "heads": 2, "ffn": 64}
    teacher["train"] |= {"steps": 2, "eval_every": 2, "warmup_steps": 0}
    teacher["evaluation"]["max_new_tokens"] = 8
    (folder / "configs" / "quickstart_teacher.yaml").write_text(yaml.safe_dump(teacher))
    first = quickstart(folder)
    cache = changed_at(folder / "cache")
    return Runs(folder, first, run_here("distill", CONFIG, *SHORTER, folder=folder), cache)


def test_the_last_lines_are_a_table_and_where_everything_is(runs: Runs) -> None:
    assert not re.search(r"logging\.cc|real_accelerator|\[transformers\]|Warning", runs.first), "what Ray and others would say"
    *_, teacher, student, _, place, report, metrics, store = runs.first.splitlines()
    assert re.match(r" *teacher .* 1\.00x", teacher)
    assert re.match(r" *student .* \d+\.\d\dx", student)
    assert place.split() == ["student", str(runs.run / "student")]
    assert report.split() == ["report", str(runs.run / "report.html")]
    assert metrics.split() == ["metrics", str(runs.run / "metrics.json")]
    assert store.split(maxsplit=1) == ["MLflow", f"mlflow ui --backend-store-uri {runs.store}"]


def test_the_run_folder_is_complete(runs: Runs) -> None:
    config = load_config(str(runs.run / "config.yaml"))
    assert (config.name, config.train.steps) == ("quickstart", STEPS)
    assert [step_of(path) for path in list_checkpoints(str(runs.run / "checkpoints"))][-1] == STEPS
    assert pq.read_table(runs.run / "rejects" / "rejects.parquet").column_names == REJECT_COLUMNS
    assert "<html" in (runs.run / "report.html").read_text()
    assert not (runs.run / "student_init").exists()


def test_the_metrics_have_the_documented_shape(runs: Runs) -> None:
    (shape,) = re.findall(
        r"^```json\n(.*?)^```", (ROOT / "raykd" / "tracking" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert keys_missing(json.loads(shape), runs.metrics) == []
    metrics = runs.metrics
    assert metrics["train"]["steps"] == STEPS
    assert metrics["student"]["params"] < metrics["teacher"]["params"]
    assert metrics["student"]["normalizer"] == {"cs": "whisper-basic"}


def keys_missing(shape: dict[str, Any], found: dict[str, Any], above: str = "") -> list[str]:
    """Keys of `shape`, with the keys above them, that are not in `found`."""
    missing = [above + key for key in shape if key not in found]
    for key, inner in shape.items():
        if isinstance(inner, dict) and key in found:
            missing += keys_missing(inner, found[key], f"{above}{key}.")
    return missing


def test_the_student_loads_and_transcribes(runs: Runs) -> None:
    folder = runs.run / "student"
    student = WhisperForConditionalGeneration.from_pretrained(folder)
    processor = WhisperProcessor.from_pretrained(folder)
    speech = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    features = processor(speech, sampling_rate=16_000, return_tensors="pt").input_features
    tokens = student.generate(features, language="cs", max_new_tokens=5)
    assert isinstance(processor.batch_decode(tokens, skip_special_tokens=True)[0], str)
    assert student.config.decoder_layers == 1
    assert "# quickstart" in (folder / "README.md").read_text()


def test_mlflow_has_the_run(runs: Runs) -> None:
    client = mlflow.MlflowClient(runs.store)
    (experiment,) = [found for found in client.search_experiments() if found.name == "raykd"]
    tracked = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(tracked) == {"quickstart-teacher", "quickstart", "quickstart-2"}
    run = tracked["quickstart"]
    assert run.info.status == "FINISHED"
    assert {"train/loss", "train/ce", "train/kl", "train/lr", "eval/wer", "eval/cs/wer", "test/student/wer"} <= set(
        run.data.metrics
    )
    assert run.data.params["train.steps"] == str(STEPS)
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "metrics.json", "report.html", "history.jsonl"} <= artifacts
    models = client.search_logged_models([experiment.experiment_id])
    assert run.info.run_id in {model.source_run_id for model in models if model.name == "student"}


def test_the_second_run_has_its_own_folder_and_makes_nothing_again(runs: Runs) -> None:
    assert (runs.folder / "runs" / "quickstart-2" / "metrics.json").exists()
    assert changed_at(runs.folder / "cache") == runs.cache
    assert runs.first.count("training: started") == 2
    assert runs.second.count("training: started") == 1
    again = json.loads((runs.folder / "runs" / "quickstart-2" / "metrics.json").read_text())
    for model in ("teacher", "student"):
        assert again[model]["wer"] == runs.metrics[model]["wer"], "the same config and seed give the same student"


def test_the_student_is_exported_once_another_program_says_the_same(runs: Runs) -> None:
    said = io.StringIO()
    with contextlib.chdir(runs.folder), contextlib.redirect_stdout(said):
        export(["runs/quickstart", "--format", "ctranslate2", "--clips", "3"])
    assert re.search(r"CTranslate2 +whole .* 0\.00 %", said.getvalue()), said.getvalue()
    out = runs.run / "exports" / "ctranslate2-float32"
    assert (out / "model.bin").exists()
    (checked,) = json.loads((out / "export.json").read_text())
    assert checked["differing_words"] == 0
    with contextlib.chdir(runs.folder), pytest.raises(UserError, match=r"windows of 30 s only, and this model's has 4 s"):
        export(["runs/quickstart", "--format", "ggml"])
    with contextlib.chdir(runs.folder), pytest.raises(UserError, match="is no run, so there are no test clips"):
        export(["runs/quickstart/student", "--format", "hf"])
