"""`python -m raykd.compare` on real runs: one table, nothing done twice, MLflow's parent and children, exports of experts."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest

from raykd import compare, export
from raykd.config.yaml_text import to_yaml
from raykd.errors import UserError
from raykd.models.experts import WhisperWithExperts
from raykd.tracking.run_folder import RunFolder
from tests.ray.commands import run_here


@pytest.fixture(scope="module")
def folder(manifest: Path, lively_dir: Path, ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A comparison of four methods that came to its end, and what it said."""
    root = tmp_path_factory.mktemp("comparison")
    tree: dict[str, Any] = {
        "name": "four",
        "output_dir": str(root),
        "base": {
            "data": {"source": str(manifest), "cache_dir": str(root / "cache")},
            "student": {"init": str(lively_dir), "freeze_encoder": False},
            "objective": "ce",
            "train": {"steps": 2, "batch_size": 8, "lr": 1e-3, "eval_every": 2, "precision": "float32"},
            "evaluation": {"batch_size": 4, "max_new_tokens": 8, "speed_utterances": 2},
            "cluster": {"num_workers": 1},
            "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "log_model": False, "system_metrics": False},
        },
        "methods": {
            "zero-shot": {"model": str(lively_dir)},
            "fine-tuning": {},
            "LoRA": {"student": {"kind": "lora", "model": str(lively_dir), "r": 2}},
            "experts": {
                "teacher": {"model": str(lively_dir)},
                "student": {"kind": "experts", "model": str(lively_dir), "languages": ["cs"], "gate_width": 4},
                "objective": "distilwhisper",
            },
        },
        "tests": {"everything": {"data": {"source": str(manifest), "dev_share": 0}}},
        "resamples": 100,
    }
    (root / "compare.yaml").write_text(to_yaml(tree))
    return root, run_here("compare", root / "compare.yaml", folder=root)


def results(root: Path) -> Any:
    return json.loads((root / "four" / "comparison.json").read_text())


def test_one_table_of_all_methods(folder: tuple[Path, str]) -> None:
    root, said = folder
    found = results(root)
    assert [entry["method"] for entry in found["methods"]] == ["zero-shot", "fine-tuning", "LoRA", "experts"]
    assert found["against"] == "fine-tuning"
    assert found["failed"] == []
    rates = {entry["method"]: entry["wer"]["everything"]["cs"] for entry in found["methods"]}
    assert all(len(values) == 1 for values in rates.values())
    assert len({tuple(values) for values in rates.values()}) > 1, "training changed something"
    assert "Word error rate on everything" in said
    assert (root / "four" / "comparison.html").read_text().count("<svg") >= 1
    facts = {entry["method"]: entry["facts"] for entry in found["methods"]}
    base = facts["zero-shot"]["stored"]
    assert facts["LoRA"]["stored"] == base, "its adapters are merged"
    assert facts["LoRA"]["trained"] == 3 * 2 * 2 * (32 + 64)
    expert = 3 * (2 * 32 * 64 + 32 + 64 + 4 * 32 + 4 + 4)
    assert facts["experts"]["trained"] == expert
    assert facts["experts"]["stored"] == base + expert
    assert facts["experts"]["active"] == base + 3 * (4 * 32 + 4 + 4)
    assert facts["fine-tuning"]["speedup"] > 0


def test_the_use_of_experts_is_measured_on_the_way_and_in_the_end(folder: tuple[Path, str]) -> None:
    root, _ = folder
    use = results(root)["methods"][-1]["expert_use"]["everything"][0]["cs"]
    assert set(use) == {"expert_use_encoder", "expert_use_decoder"}
    assert all(0 <= share <= 1 for share in use.values())
    run = RunFolder(str(root / "four" / "runs" / "experts-seed0"))
    records = [json.loads(line) for line in run.read_text("history.jsonl").splitlines()]
    trained = [record for record in records if record["kind"] == "train"]
    assert {"ce", "gate_budget", "js", "expert_use_encoder", "expert_use_decoder"} == set(trained[0]["terms"])
    (scored,) = [record for record in records if record["kind"] == "eval"]
    assert 0 <= scored["expert_use_encoder"] <= 1


def test_mlflow_shows_the_runs_under_the_comparison(folder: tuple[Path, str]) -> None:
    root, _ = folder
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "raykd"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("raykd.kind") == "comparison"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_name for run in children} == {"fine-tuning-seed0", "LoRA-seed0", "experts-seed0"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.metrics["wer/everything/LoRA/cs"] >= 0
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"comparison.html", "comparison.json"}


def test_the_same_command_does_what_is_missing_and_nothing_twice(folder: tuple[Path, str]) -> None:
    root, _ = folder
    before = results(root)
    runs = root / "four" / "runs"
    kept = (runs / "fine-tuning-seed0" / "history.jsonl").stat().st_mtime_ns
    shutil.rmtree(runs / "LoRA-seed0")
    run_here("compare", root / "compare.yaml", "methods.LoRA.train={lr: 0.05}", folder=root)
    after = results(root)
    assert (runs / "fine-tuning-seed0" / "history.jsonl").stat().st_mtime_ns == kept
    assert (runs / "LoRA-seed0" / "metrics.json").exists()
    rates = [[entry["wer"] for entry in found["methods"]] for found in (before, after)]
    assert rates[0][:2] + rates[0][3:] == rates[1][:2] + rates[1][3:]
    assert rates[0][2] != rates[1][2], "scores are of the weights that are there"


def test_other_settings_are_another_comparison(folder: tuple[Path, str]) -> None:
    root, _ = folder
    with pytest.raises(UserError, match=r"fine-tuning-seed0: was run with other settings \(train\.lr\); delete it, or give"):
        run_here("compare", root / "compare.yaml", "base.train.lr=2e-3", folder=root)


def test_finished_runs_are_compared_as_they_are(folder: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    root, _ = folder
    runs = [str(root / "four" / "runs" / name) for name in ("fine-tuning-seed0", "experts-seed0")]
    compare.main([*runs, "--out", str(root / "two"), "--against", "experts-seed0"])
    said = capsys.readouterr().out
    assert "Word error rate on test" in said
    assert "difference from experts-seed0" in said
    assert (root / "two" / "comparison.html").exists()
    with pytest.raises(UserError, match="is no run folder"):
        compare.main([str(root)])
    with pytest.raises(UserError, match="no run is called kd"):
        compare.main([*runs, "--against", "kd"])


def test_experts_are_exported_as_files_and_refused_where_that_is_not_exact(
    folder: tuple[Path, str], manifest: Path, tmp_path: Path
) -> None:
    root, _ = folder
    run = root / "four" / "runs" / "experts-seed0"
    export.main([str(run), "--format", "experts", "--out", str(tmp_path / "files"), "--clips", "2"])
    assert (tmp_path / "files" / "experts" / "cs.safetensors").exists()
    assert not (tmp_path / "files" / "base" / "config.json").read_text().count("gate_width")
    assert isinstance(WhisperWithExperts.from_pretrained(run / "student"), WhisperWithExperts)
    with pytest.raises(UserError, match="ctranslate2 knows no language experts, and the model has some for cs"):
        export.main([str(run), "--format", "ctranslate2", "--out", str(tmp_path / "ct2")])
    with pytest.raises(UserError, match=r"--expert cs: .* gates for cs send each token its own way"):
        export.main([str(run), "--format", "ctranslate2", "--expert", "cs", "--out", str(tmp_path / "ct2")])
    with pytest.raises(UserError, match="there is no clip in another language than cs"):
        export.main([str(run), "--format", "hf", "--expert", "none", "--out", str(tmp_path / "hf")])
