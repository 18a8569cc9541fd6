"""A teacher's folder that a run left before its config was written blocked every later run with an error about --resume."""

from pathlib import Path

import pytest

from raykd.config import Config
from raykd.teachers import ensure_teacher
from raykd.tracking.run_folder import RunFolder
from tests.teachers import Trained, student_of, training


@pytest.mark.parametrize("left", ["", "config.yaml", "student_init/config.json"])
def test_a_half_made_teacher_is_trained_anew(tmp_path: Path, left: str) -> None:
    config = student_of(tmp_path)
    folder = Path(training(config).output_dir) / "master" / left
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("name: [mast") if left else folder.mkdir()
    assert training(config).resume is False


def test_one_that_was_begun_is_gone_on_with_and_a_finished_one_is_used(tmp_path: Path) -> None:
    config, begun = student_of(tmp_path), []

    def die(teacher: Config, resume: bool) -> RunFolder:
        begun.append(RunFolder.create(teacher))
        raise Trained(teacher.output_dir, resume)

    with pytest.raises(Trained):
        ensure_teacher(config, die)
    assert training(config).resume is True
    for name in ("metrics.json", "report.html"):
        begun[0].write_text(name, "")
    assert ensure_teacher(config, die) == begun[0].student_dir


def test_half_a_student_is_made_again(tmp_path: Path) -> None:
    """transformers writes config.json before the weights: a kill in between left a folder that looked whole."""
    run, made = RunFolder(str(tmp_path)), []

    def killed() -> None:
        run.write_text("student_init/config.json", "{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.make_once(run.student_init_dir, killed)
    for _ in range(2):
        run.make_once(run.student_init_dir, lambda: made.append(run))
    assert made == [run]
