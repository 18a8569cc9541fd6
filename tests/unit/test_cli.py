"""How commands start and end."""

import sys
from collections.abc import Sequence
from types import ModuleType

import pytest
import ray.exceptions

import raykd
from raykd import cli
from raykd.errors import RunError, UserError
from raykd.export import main as export


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`raykd ARGUMENTS` and its exit status."""
    monkeypatch.setattr(sys, "argv", ["raykd", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_verb(flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, flag) == 0
    out, err = capsys.readouterr()
    assert not err
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(cli.VERBS)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"raykd {raykd.__version__}\n"


def test_no_verb_and_an_unknown_verb_are_mistakes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch) == 2
    assert capsys.readouterr().err.startswith("usage: raykd VERB")
    assert run(monkeypatch, "distill") == 2
    assert capsys.readouterr().err.startswith("raykd: distill: unknown verb; did you mean distil?\nusage: raykd VERB")


def test_a_verb_gets_the_arguments_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[str]] = []
    module = ModuleType("raykd_test_verb")
    module.main = seen.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.VERBS, "try", (module.__name__, "for this test"))
    assert run(monkeypatch, "try", "--config", "a.yaml", "train.lr=1") == 0
    assert seen == [["--config", "a.yaml", "train.lr=1"]]


def status_of(error: BaseException) -> int:
    def command(arguments: Sequence[str]) -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        cli.run_command(command, [])
    return int(end.value.code or 0)


def test_a_user_mistake_is_printed_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(UserError("run.yaml: train.lr: must be a number\nrun.yaml: seed: unknown key")) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err == "raykd: run.yaml: train.lr: must be a number\nraykd: run.yaml: seed: unknown key\n"


def test_a_user_mistake_found_in_a_ray_task_is_printed_without_the_tasks_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    mistake = UserError("clips/a.mp3: unreadable audio")
    inner = ray.exceptions.RayTaskError("decode", "Traceback: line 1\nline 2", mistake).as_instanceof_cause()
    outer = ray.exceptions.RayTaskError("prepare", "Traceback: line 1\nline 2", inner)
    assert str(inner) != str(mistake)
    assert status_of(inner) == 2
    assert status_of(outer) == 2
    assert capsys.readouterr().err == "raykd: clips/a.mp3: unreadable audio\n" * 2


def test_a_run_that_failed_says_so_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(RunError("the loss is not a number at step 7")) == 1
    assert capsys.readouterr().err == "raykd: the loss is not a number at step 7\n"


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(KeyboardInterrupt()) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    def command(arguments: Sequence[str]) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.run_command(command, [])


def test_a_lost_ray_is_one_line_and_a_fault_of_ours_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    from ray.exceptions import RaySystemError, RayTaskError

    def lose(arguments: Sequence[str]) -> None:
        raise RaySystemError("the raylet is gone")

    with pytest.raises(SystemExit) as ended:
        cli.run_command(lose, [])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("raykd: Ray stopped working (")
    assert told.endswith("go on with --resume\n")
    assert told.count("\n") == 1

    def fail(arguments: Sequence[str]) -> None:
        raise RayTaskError("f", "traceback", ValueError("ours"))

    with pytest.raises(RayTaskError):
        cli.run_command(fail, [])


@pytest.mark.parametrize("count", ["0", "-1", "a"])
def test_an_export_is_tried_on_one_clip_at_least(count: str) -> None:
    with pytest.raises(UserError, match=rf"--clips: must be a whole number of at least 1 \(got {count}\)"):
        export(["runs/x", "--format", "hf", f"--clips={count}"])
