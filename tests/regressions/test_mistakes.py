"""Mistakes that once came with a wrong or a long answer, or only after minutes of work."""

import json
from pathlib import Path

import pytest
import ray
import yaml

from raykd import distill, evaluate
from raykd.cli import run_command
from raykd.config import Config, load_config
from raykd.config.data import DemoSource
from raykd.data.audio import AudioError, decode_audio
from raykd.data.demo import write_demo_corpus
from raykd.errors import UserError
from raykd.models import whisper
from raykd.preflight import check_run
from raykd.tracking.progress import Progress

DEMO_TEACHER: dict[str, object] = {
    "name": "made-teacher",
    "data": {"source": "demo"},
    "student": {"init": "scratch", "scratch": {"width": 32, "heads": 2, "ffn": 64, "decoder_layers": 3}},
    "objective": {"recipe": "ce"},
    "train": {"steps": 1},
}


def config_with(folder: Path, teacher: dict[str, object], *overrides: str) -> Config:
    """A run on one recording whose teacher raykd trains."""
    (folder / "rows.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "one", "language": "en"}))
    tree = {"data": {"source": str(folder / "rows.jsonl")}, "teacher": {"model": "teacher.yaml"}, "train": {"steps": 1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    (folder / "teacher.yaml").write_text(yaml.safe_dump(teacher))
    places = [f"output_dir={folder}/runs", f"data.cache_dir={folder}/cache"]
    return load_config(str(folder / "run.yaml"), [*places, *overrides])


def mistake(config: Config, resume: bool = False) -> str:
    with pytest.raises(UserError) as error:
        check_run(config, resume)
    return str(error.value)


def test_a_possible_run_passes_and_leaves_no_run_folder(tmp_path: Path) -> None:
    check_run(config_with(tmp_path, DEMO_TEACHER, "student.decoder_layers=3"), resume=False)
    assert list((tmp_path / "runs").iterdir()) == []


def test_layers_are_checked_before_the_demo_teacher_is_trained(tmp_path: Path) -> None:
    assert "student.decoder_layers: 4 layers" in mistake(config_with(tmp_path, DEMO_TEACHER, "student.decoder_layers=4"))


def test_a_source_is_checked_before_the_demo_teacher_is_trained(tmp_path: Path) -> None:
    config = config_with(tmp_path, DEMO_TEACHER, f"data.source={tmp_path}/absent.jsonl")
    assert mistake(config) == f"data.source: {tmp_path}/absent.jsonl does not exist; correct the path"


def test_a_mistake_in_the_teachers_own_config_names_its_file(tmp_path: Path) -> None:
    config = config_with(tmp_path, DEMO_TEACHER | {"data": {"source": {"kind": "demo", "languages": ["xx"]}}})
    assert mistake(config).startswith(f"{tmp_path}/teacher.yaml: data.source.languages: ")


def test_a_teacher_that_is_its_own_teacher_is_refused(tmp_path: Path) -> None:
    circle: dict[str, object] = {"data": {"source": "demo"}, "teacher": {"model": "teacher.yaml"}, "train": {"steps": 1}}
    assert "teacher.model: leads back to this file" in mistake(config_with(tmp_path, circle))


@pytest.mark.parametrize("key", ["output_dir", "data.cache_dir"])
def test_a_file_in_place_of_a_folder_is_refused(key: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert mistake(config_with(tmp_path, DEMO_TEACHER, f"{key}={tmp_path}/file")).startswith(
        f"{key}: {tmp_path}/file cannot be"
    )


def test_nothing_to_resume_is_told_at_once(tmp_path: Path) -> None:
    assert "has no run named distil to resume" in mistake(config_with(tmp_path, DEMO_TEACHER), resume=True)


@pytest.mark.parametrize(
    ("override", "complaint"), [("trian.lr=1", "trian: unknown key"), ("train.epochs=2", "train: give exactly")]
)
def test_a_mistake_above_an_overridden_key_is_the_command_lines(override: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^command line: {complaint}"):
        config_with(tmp_path, DEMO_TEACHER, override)


def test_a_mistake_of_the_file_is_the_files_whatever_is_overridden(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "data: {source: demo}\nobjective: {recipe: ce}\nstudent: {init: scratch}\ntrain: {lr: 1e-3}\n"
    )
    with pytest.raises(UserError, match=f"^{tmp_path}/run.yaml: train: give exactly one"):
        load_config(f"{tmp_path}/run.yaml", ["train.lr=1e-4"])


@pytest.mark.parametrize("uri", ["garbage", "foo://bar"])
def test_what_is_no_address_of_a_store_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^command line: tracking\.uri: must be sqlite:///FILE"):
        config_with(tmp_path, DEMO_TEACHER, f"tracking.uri={uri}")


def test_wrong_arguments_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(distill.main, ["--no-such-flag"])
    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_hub_that_does_not_resolve_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(whisper, "getproxies", dict)
    whisper._hub_is_out_of_reach.cache_clear()
    assert whisper._hub_is_out_of_reach()
    whisper._hub_is_out_of_reach.cache_clear()


def test_an_empty_file_is_rejected_as_empty() -> None:
    with pytest.raises(AudioError, match=r"^empty audio$"):
        decode_audio(b"")


def test_time_left_does_not_count_the_start_of_the_workers(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with Progress(every_s=0, clock=lambda: now[0]) as progress:
        progress.phase("models")
        progress.phase("training", total=10, unit="steps")
        for step, now[0] in ((1, 100.0), (3, 102.0)):
            progress.update(step)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "models: started",
        "models: done in 0:00",
        "training: started, 10 steps",
        "training: 1/10 steps, 1:40 elapsed",
        "training: 3/10 steps, 0:07 left, 1:42 elapsed",
        "training: done, 3 steps in 1:42",
    ]


def test_demo_speech_into_a_file_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written"):
        write_demo_corpus(DemoSource(kind="demo", hours=0.01), str(tmp_path / "file"))


def test_evaluate_looks_at_the_source_before_ray_starts(tmp_path: Path) -> None:
    before = ray.is_initialized()  # by another test
    with pytest.raises(UserError, match=r"^data\.source: /nowhere\.jsonl does not exist"):
        evaluate.main(["--model", str(tmp_path), "--data", "/nowhere.jsonl"])
    assert ray.is_initialized() == before
