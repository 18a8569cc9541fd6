"""What is said of config keys beside their types: found and replaced wherever they are, free ones known."""

from typing import Annotated, Any

from raykd.config import Config
from raykd.config.base import Mark, Section, mapped, marked, marks_of
from raykd.config.load import parse

TREE: dict[str, Any] = {
    "data": {"source": ["demo", "a.jsonl", {"kind": "huggingface", "path": "google/fleurs"}], "cache_dir": "cache"},
    "teacher": {"model": "teacher.yaml"},
    "student": {"init": "openai/whisper-tiny"},
    "objective": {
        "terms": ["kl", {"kind": "kl", "target": "lm"}, {"kind": "kl", "target": "small"}],
        "targets": {"lm": {"kind": "mlm", "model": "lm"}, "small": {"kind": "whisper", "model": "small"}},
    },
    "train": {"steps": 1},
}


def config(**changes: Any) -> Config:
    return parse(Config, {**TREE, **changes}, "run.yaml")


def keys(mark: Mark, section: Section) -> dict[str, Any]:
    return {path: value for path, value, marks in marked(section) if mark in marks}


def test_models_are_found_wherever_they_are_named() -> None:
    theirs = {"teacher.model": "teacher.yaml", "objective.targets.small.model": "small"}
    assert keys(Mark.WHISPER, config()) == {**theirs, "student.model": "openai/whisper-tiny"}
    assert keys(Mark.MLM, config()) == {"objective.targets.lm.model": "lm"}
    assert keys(Mark.MLM, config(objective={"recipe": "mlm_kd", "mlm": "lm"})) == {"objective.mlm.model": "lm"}


def test_paths_are_found_wherever_they_are_named() -> None:
    assert set(keys(Mark.PATH, config())) == {"data.source[1].path", "data.cache_dir", "output_dir"}
    assert set(keys(Mark.PATH_IF_THERE, config())) == {"data.source[2].path"}


def test_marked_values_are_replaced_and_nothing_else() -> None:
    def absolute(path: str, value: Any, marks: tuple[Mark, ...]) -> Any:
        return f"/at/{path}/{value}" if Mark.PATH in marks or Mark.WHISPER in marks else value

    changed = mapped(config(), absolute)
    found = {path: value for path, value, _ in marked(changed)}
    assert found["teacher.model"] == "/at/teacher.model/teacher.yaml"
    assert found["objective.targets.small.model"] == "/at/objective.targets.small.model/small"
    assert found["data.source[1].path"] == "/at/data.source[1].path/a.jsonl"
    before = {path: value for path, value, _ in marked(config())}
    expected = {path for path in (*keys(Mark.PATH, config()), *keys(Mark.WHISPER, config())) if before[path] is not None}
    assert {path for path in found if found[path] != before[path]} == expected
    assert changed.train == config().train


def test_none_is_nobodys_path() -> None:
    class Inner(Section):
        path: Annotated[str | None, Mark.PATH] = None

    class Outer(Section):
        inner: Inner = Inner()
        many: tuple[Inner, ...] = ()

    outer = Outer(many=(Inner(), Inner(path="a")))
    assert [path for path, *_ in marked(outer)] == ["many[1].path"]
    assert mapped(outer, lambda path, value, marks: value) is outer
    assert mapped(outer, lambda path, value, marks: f"{value}{value}").many == (Inner(), Inner(path="aa"))


def test_a_key_may_have_several_marks() -> None:
    assert marks_of(Config, "output_dir") == (Mark.PATH, Mark.FREE)
    assert marks_of(Config, "train") == ()


def test_what_changes_what_is_trained_on_what_is_not_free() -> None:
    def free(section: type[Section], above: str = "") -> set[str]:
        found = set()
        for key in section.model_fields:
            if Mark.FREE in marks_of(section, key):
                found.add(above + key)
        return found

    assert free(Config) == {"cache", "cluster", "evaluation", "label", "output_dir", "parts", "tracking"}
    fixed = config()
    for section in (fixed.train, fixed.data, fixed.student, fixed.teacher, *fixed.method.targets.values(), *fixed.method.terms):
        assert section is not None
        trained = {"lr", "steps", "batch_size", "seed", "model", "revision", "weight", "target", "source", "freeze_encoder"}
        assert not free(type(section)) & trained
