"""Sentences for the report: what was said, what teacher and student wrote, and where they differ."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raykd.evaluation.differences import Difference, align

Row = dict[str, Any]
"""A scored utterance of `evaluation/<model>-<split>.parquet`."""

MAX_ALIGNED = 5000
"""Rows whose words are compared when common mistakes are counted."""


@dataclass(frozen=True)
class Example:
    """One utterance. `student` and `teacher` are its differences from the reference; `teacher` is None without one."""

    id: str
    language: str
    reference: str
    student: list[Difference]
    teacher: list[Difference] | None
    student_errors: int
    teacher_errors: int | None
    words: int


@dataclass(frozen=True)
class Mistake:
    """A word and what the student wrote for it, with how often it did; empty for a left out or an added word."""

    reference: str
    hypothesis: str
    count: int


@dataclass(frozen=True)
class InvalidWord:
    """A word that is not in the vocabulary, and how often student and teacher wrote it; `teacher` is None without one."""

    word: str
    student: int
    teacher: int | None


def errors_of(row: Row) -> int:
    """Word errors of a row."""
    return row["substitutions"] + row["deletions"] + row["insertions"]


def worst_examples(student: Sequence[Row], teacher: Sequence[Row], count: int) -> list[Example]:
    """The utterances with the most errors per word; those without any error are left out."""
    wrong = [row for row in student if errors_of(row)]
    wrong.sort(key=lambda row: (-errors_of(row) / max(1, row["words"]), -row["words"], row["id"]))
    return _examples(wrong[:count], teacher)


def typical_examples(student: Sequence[Row], teacher: Sequence[Row], count: int) -> list[Example]:
    """Utterances chosen by hash of their ids: neither the best nor the worst."""
    return _examples(sorted(student, key=lambda row: hashlib.sha256(row["id"].encode()).digest())[:count], teacher)


def common_mistakes(student: Sequence[Row], count: int) -> list[Mistake]:
    """The single-word substitutions, omissions and additions that happen most often, at least twice."""
    mistakes: Counter[tuple[str, str]] = Counter()
    for row in [row for row in student if errors_of(row)][:MAX_ALIGNED]:
        for operation, reference, hypothesis in align(*_texts(row)):
            if operation != "equal":
                mistakes.update(_pairs(reference.split(), hypothesis.split()))
    often = [(pair, times) for pair, times in mistakes.items() if times > 1]
    often.sort(key=lambda item: (-item[1], item[0]))
    return [Mistake(reference, hypothesis, times) for (reference, hypothesis), times in often[:count]]


def common_invalid_words(student: Sequence[Row], teacher: Sequence[Row], count: int) -> list[InvalidWord]:
    """The words outside the vocabulary that the student writes most often; none where there was no vocabulary."""
    by_student, by_teacher = (
        Counter(word for row in rows for word in row.get("invalid_words") or ()) for rows in (student, teacher)
    )
    often = sorted(by_student.items(), key=lambda item: (-item[1], item[0]))
    return [InvalidWord(word, times, by_teacher[word] if teacher else None) for word, times in often[:count]]


def _examples(rows: Sequence[Row], teacher: Sequence[Row]) -> list[Example]:
    teacher_rows = {row["id"]: row for row in teacher}
    return [_example(row, teacher_rows.get(row["id"])) for row in rows]


def _example(row: Row, teacher: Row | None) -> Example:
    return Example(
        id=row["id"],
        language=row["language"],
        reference=_texts(row)[0],
        student=align(*_texts(row)),
        teacher=align(*_texts(teacher)) if teacher else None,
        student_errors=errors_of(row),
        teacher_errors=errors_of(teacher) if teacher else None,
        words=row["words"],
    )


def _texts(row: Row) -> tuple[str, str]:
    """Reference and hypothesis as they were scored."""
    if "reference_normalized" in row:
        return row["reference_normalized"], row["hypothesis_normalized"]
    return row["reference"], row["hypothesis"]


def _pairs(reference: list[str], hypothesis: list[str]) -> list[tuple[str, str]]:
    if reference and hypothesis:
        return list(zip(reference, hypothesis, strict=True))
    return [(word, "") for word in reference] or [("", word) for word in hypothesis]
