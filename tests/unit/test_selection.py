"""The best checkpoint by dev WER is kept, whatever is deleted around it."""

import threading
from pathlib import Path

import torch

from raykd.training import checkpoint as ckpt
from raykd.training.selection import CheckpointSelection

TENSORS = ckpt.Tensors({"w": torch.zeros(1)}, {})


def write(folder: Path, step: int) -> None:
    ckpt.write_checkpoint(str(folder), ckpt.CheckpointState(step, "", "", ""), TENSORS)


def steps(folder: Path) -> list[int]:
    return [ckpt.step_of(path) for path in ckpt.list_checkpoints(str(folder))]


def test_the_best_and_the_newest_are_kept(tmp_path: Path) -> None:
    wer = {1: 0.5, 2: 0.2, 3: 0.3, 4: 0.2}
    scored = []
    selection = CheckpointSelection(
        str(tmp_path),
        keep=1,
        evaluate=lambda path: {"wer": wer[ckpt.step_of(path)]},
        on_score=lambda step, summary: scored.append((step, summary["wer"])),
        known_scores={},
    )
    for step in wer:
        write(tmp_path, step)
        selection.written(step, evaluate=True)
    assert selection.best() == ckpt.path_of(str(tmp_path), 2), "the earlier of equals"
    assert scored == list(wer.items())
    assert steps(tmp_path) == [2, 4]


def test_a_checkpoint_of_an_unfinished_student_is_scored_and_not_chosen(tmp_path: Path) -> None:
    wer = {1: 0.1, 2: 0.3, 3: 0.2}
    selection = CheckpointSelection(
        str(tmp_path),
        keep=1,
        evaluate=lambda path: {"wer": wer[ckpt.step_of(path)]},
        on_score=lambda *_: None,
        known_scores={},
        first=2,
    )
    for step in wer:
        write(tmp_path, step)
        selection.written(step, evaluate=True)
    assert selection.best() == ckpt.path_of(str(tmp_path), 3)
    assert steps(tmp_path) == [3]


def test_scores_from_before_a_resume_count_and_are_not_made_again(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, step)
    evaluated = []

    def evaluate(path: str) -> dict[str, float]:
        evaluated.append(ckpt.step_of(path))
        return {"wer": 0.4}

    known = {1: 0.1, 9: 0.0}
    selection = CheckpointSelection(str(tmp_path), keep=1, evaluate=evaluate, on_score=lambda *_: None, known_scores=known)
    selection.written(1, evaluate=True)
    selection.written(2, evaluate=True)
    assert selection.best() == ckpt.path_of(str(tmp_path), 1), "the checkpoint of step 9 is no longer there"
    assert evaluated == [2]


def test_a_checkpoint_that_waits_for_its_score_is_not_deleted(tmp_path: Path) -> None:
    seen = []

    def evaluate(path: str) -> dict[str, float]:
        seen.append(Path(path, "state.json").exists())
        return {"wer": 1.0}

    selection = CheckpointSelection(str(tmp_path), keep=1, evaluate=evaluate, on_score=lambda *_: None, known_scores={})
    for step in range(1, 6):
        write(tmp_path, step)
        selection.written(step, evaluate=True)
    selection.best()
    assert seen == [True] * 5


def test_closed_it_scores_nothing_that_waits(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    evaluated = []

    def evaluate(path: str) -> dict[str, float]:
        begun.set()
        go_on.wait(10)
        evaluated.append(ckpt.step_of(path))
        return {"wer": 0.4}

    selection = CheckpointSelection(str(tmp_path), keep=4, evaluate=evaluate, on_score=lambda *_: None, known_scores={})
    for step in (1, 2, 3):
        write(tmp_path, step)
        selection.written(step, evaluate=True)
    begun.wait(10)
    selection.close(wait=False)
    go_on.set()
    selection.close(wait=True)
    assert evaluated == [1]


def test_what_a_killed_driver_left_unscored_is_scored_and_damaged_ones_are_left_alone(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    Path(ckpt.path_of(str(tmp_path), 2), ckpt.TRAINABLE).write_bytes(b"no")
    evaluated = []

    def evaluate(path: str) -> dict[str, float]:
        evaluated.append(ckpt.step_of(path))
        return {"wer": 0.4}

    selection = CheckpointSelection(str(tmp_path), keep=4, evaluate=evaluate, on_score=lambda *_: None, known_scores={1: 0.5})
    for _ in range(2):
        selection.catch_up(lambda step: step != 3)
    assert selection.best() == ckpt.path_of(str(tmp_path), 4)
    assert evaluated == [4]
