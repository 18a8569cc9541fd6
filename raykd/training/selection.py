"""Scoring checkpoints on dev while training goes on, and keeping the best one."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from raykd.training import checkpoint as ckpt

Scores = Mapping[str, Any]


class CheckpointSelection:
    """Evaluates checkpoints one after the other on a thread of its own, so that the workers never wait.

    The checkpoint with the lowest `score` (the earlier one of equals) is kept, and the newest `keep`; others are deleted
    once they are scored.
    """

    def __init__(
        self,
        folder: str,
        keep: int,
        evaluate: Callable[[str], Scores],
        on_score: Callable[[int, Scores], None],
        known_scores: Mapping[int, float],
        score: str = "wer",
        first: int = 0,
    ) -> None:
        """`evaluate(path)` scores a checkpoint; `known_scores` are the values of `score`, by step, from before a resume. Those
        of steps before `first` are scored and never the best, unless there are no others.
        """
        self._folder = folder
        self._keep = keep
        self._evaluate = evaluate
        self._on_score = on_score
        self._score_name, self._first = score, first
        present = {ckpt.step_of(path) for path in ckpt.list_checkpoints(folder)}
        self._known = {step: value for step, value in known_scores.items() if step in present}
        self._pending: dict[int, Future[None]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dev-evaluation")

    def written(self, step: int, evaluate: bool) -> None:
        """A checkpoint was written. A step that was scored before a worker was lost is not scored again.

        An evaluation that failed before is raised here rather than after the last step.
        """
        for pending in self._pending.values():
            if pending.done():
                pending.result()
        if evaluate:
            self._submit(step)
        self._prune()

    def catch_up(self, due: Callable[[int], bool]) -> None:
        """Score the checkpoints that are there and should have been: a killed driver had not come to it, or its workers wrote
        them when it was gone. Damaged ones are left alone."""
        for path in ckpt.list_checkpoints(self._folder):
            step = ckpt.step_of(path)
            if due(step) and step not in self._known and step not in self._pending and ckpt.damage(path) is None:
                self._submit(step)

    def close(self, wait: bool) -> None:
        """Score no more; `wait` for the evaluation at work."""
        self._pool.shutdown(wait, cancel_futures=True)

    def best(self) -> str:
        """Wait for all scores; the path of the best checkpoint."""
        self._pool.shutdown()
        for pending in self._pending.values():
            pending.result()
        self._prune()
        return self._path(self._best_step())

    def _submit(self, step: int) -> None:
        if step not in self._known and step not in self._pending:
            self._pending[step] = self._pool.submit(self._score, step)

    def _best_step(self) -> int:
        known = dict(self._known)  # another thread adds to it
        return min(known, key=lambda step: (step < self._first, known[step], step))

    def _score(self, step: int) -> None:
        scores = self._evaluate(self._path(step))
        self._known[step] = scores[self._score_name]
        self._on_score(step, scores)

    def _prune(self) -> None:
        protected = {self._path(step) for step, pending in self._pending.items() if not pending.done()}
        if self._known:
            protected.add(self._path(self._best_step()))
        ckpt.prune_checkpoints(self._folder, self._keep, protected)

    def _path(self, step: int) -> str:
        return ckpt.path_of(self._folder, step)
