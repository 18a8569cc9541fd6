"""The README tells the truth: its commands parse, its configs load, its paths exist, its reference is the config tree."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from raykd import demo_data, evaluate
from raykd.cli import VERBS
from raykd.config import Config, MlmRunConfig, load_config, load_mlm_config
from raykd.config.base import Section, types_in
from raykd.config.data import DataConfig, Mix, SpecAugment
from raykd.config.load import parse
from raykd.config.mlm import MlmConfig, MlmTeacherConfig
from raykd.config.models import ScratchConfig, StudentConfig, TeacherConfig
from raykd.config.objective import ScheduleConfig, TermConfig
from raykd.config.text import TextConfig
from raykd.config.training import ClusterConfig, EvaluationConfig, TrackingConfig, TrainConfig
from raykd.config.yaml_text import from_yaml
from raykd.data.utterances import AUDIO_COLUMNS, ID_COLUMNS, LANGUAGE_COLUMNS, SPLIT_COLUMNS, TEXT_COLUMNS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
QUICKSTART = "pip install -c constraints.txt -e . && python -m raykd.distill --config configs/quickstart.yaml"
TESTS = "pip install -c constraints.txt -e '.[test]' && pytest"
SMALLEST = {"data": {"source": "demo"}, "teacher": {"model": "t"}, "train": {"steps": 1}}

REFERENCE: dict[str, type[Section]] = {
    "Top level": Config,
    "Top level of a language model's config": MlmRunConfig,
    "`data`": DataConfig,
    "`data.mix`": Mix,
    "`data.spec_augment`": SpecAugment,
    "`text`": TextConfig,
    "`mlm`": MlmConfig,
    "`teacher`": TeacherConfig,
    "`student`": StudentConfig,
    "`student.scratch`": ScratchConfig,
    "`objective.mlm`": MlmTeacherConfig,
    "`objective.terms`": TermConfig,
    "A schedule": ScheduleConfig,
    "`train`": TrainConfig,
    "`evaluation`": EvaluationConfig,
    "`tracking`": TrackingConfig,
    "`cluster`": ClusterConfig,
}
UNIONS: dict[str, tuple[type[Section], str, str]] = {
    "`data.source`": (DataConfig, "source", "kind"),
    "`text.source`": (TextConfig, "source", "kind"),
    "`objective`": (Config, "objective", "recipe"),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Each command of the README's shell blocks, without `ray job submit ... --` in front."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(command) for line in lines for command in line.split(" && ")]
    return [command[command.index("--") + 1 :] if command[0] == "ray" else command for command in words]


def distillations() -> list[list[str]]:
    """Arguments of the README's distillations."""
    return [command[3:] for command in commands() if command[:3] == ["python", "-m", "raykd.distill"]]


def tables(part: str = README) -> Iterator[tuple[str, list[list[str]]]]:
    """(the last heading or bold title in front, rows with the header first) of every table."""
    title, rows = "", []
    for line in [*part.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
            continue
        if rows:
            yield title, [row for row in rows if not set(row[0]) <= {"-", "|", ":"}]
            rows = []
        if found := re.match(r"\*\*(.+?)\*\*|#+ (.+)", line):
            title = found[1] or found[2]


def table_under(title: str) -> list[list[str]]:
    return next(rows for name, rows in tables() if name == title)


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Commands


def test_both_commands_are_on_the_first_screen() -> None:
    first_screen = "\n".join(README.splitlines()[:25])
    assert f"```bash\n{QUICKSTART}\n```" in first_screen
    assert f"<!-- ci: test -->\n```bash\n{TESTS}\n```" in first_screen


def test_every_command_is_one_of_ours_or_known() -> None:
    modules = {module for module, _ in VERBS.values()}
    for command in commands():
        match command:
            case ["python", "-m", module, *_]:
                assert module in modules
            case ["raykd", verb, *_]:
                assert verb in VERBS
            case _:
                assert command[0] in {"pip", "pytest", "mlflow"}, command
    assert len(distillations()) >= 5


@pytest.mark.parametrize("arguments", distillations(), ids=" ".join)
def test_a_distillation_has_a_config_that_loads(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flag, path, *rest = arguments
    assert flag == "--config"
    load_config(path, [word for word in rest if word != "--resume"])


def test_the_training_of_a_language_model_has_a_config_that_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    trainings = [command[3:] for command in commands() if command[:3] == ["python", "-m", "raykd.train_mlm"]]
    assert trainings
    for _, path, *rest in trainings:
        load_mlm_config(path, rest)


def test_evaluations_and_demo_data_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_speech_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    seen = set()
    for command in commands():
        arguments = command[3:] if command[0] == "python" else command[2:]
        if "raykd.evaluate" in command[:3] or command[:2] == ["raykd", "evaluate"]:
            evaluate._config(evaluate._parse(arguments))
            seen.add("evaluate")
        elif "raykd.demo_data" in command[:3] or command[:2] == ["raykd", "demo-data"]:
            assert demo_data._parse(arguments).out
            seen.add("demo-data")
    assert seen == {"evaluate", "demo-data"}


# Configs


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_config_in_the_readme_loads(text: str) -> None:
    parse(Config, from_yaml(text, "README.md"), "README.md")


def make_speech_folders(root: Path) -> None:
    """What the README's short forms of folders are recognised by."""
    (root / "cv-corpus/cs/clips").mkdir(parents=True)
    (root / "cv-corpus/cs/train.tsv").touch()
    (root / "recordings").mkdir()
    (root / "recordings/a.flac").touch()


def test_short_and_full_forms_of_sources_are_the_same_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_speech_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    _, *rows = table_under("Sources")
    kinds = []
    for _, short, full in rows:
        (of_short,) = DataConfig.model_validate({"source": code(short)[0]}).source
        (of_full,) = DataConfig.model_validate({"source": from_yaml(code(full)[0], "README.md")}).source
        assert of_short.kind == of_full.kind
        kinds.append(of_full.kind)
    assert kinds == [choice.model_fields["kind"].default for choice in choices(DataConfig, "source")]


def test_the_columns_of_a_manifest_are_those_that_are_read() -> None:
    read = {row[0]: tuple(code(row[1])) for name, rows in tables() if name == "Sources" for row in rows}
    columns = {"audio": AUDIO_COLUMNS, "transcript": TEXT_COLUMNS, "language": LANGUAGE_COLUMNS}
    for name, known in {**columns, "id": ID_COLUMNS, "split": SPLIT_COLUMNS}.items():
        assert read[name] == known


def test_students_and_objectives_in_tables_are_possible() -> None:
    students = [code(row[0]) for name, rows in tables() if name == "Teacher and student" for row in rows if "{" in row[0]]
    tables_of_objectives = table_under("Methods")[1:] + table_under("Text")[1:]
    objectives = [code(row[0]) for row in tables_of_objectives if "..." not in row[0]]
    assert len(students) == 5
    assert len(objectives) == 6
    for (text,) in students:
        Config.model_validate({**SMALLEST, "student": from_yaml(text, "README.md")})
    for (text,) in objectives:
        Config.model_validate({**SMALLEST, "objective": from_yaml(text, "README.md")})


# The config reference


def choices(section: type[Section], key: str) -> list[type[Section]]:
    """The sections that a field may hold, in their order."""
    annotation = section.model_fields[key].annotation
    return [kind for kind in dict.fromkeys(types_in(annotation)) if isinstance(kind, type) and issubclass(kind, Section)]


def default_of(section: type[Section], key: str) -> Any:
    """A field's default as YAML has it; `{}` stands for a section with nothing but defaults."""
    field = section.model_fields[key]
    if isinstance(field.default, Section):
        return field.default.model_dump(mode="json", exclude_defaults=True)
    return list(field.default) if isinstance(field.default, tuple) else field.default


def reference() -> dict[str, list[list[str]]]:
    part = README.partition("\n## Config reference\n")[2].partition("\n## ")[0]
    return {title: rows[1:] for title, rows in tables(part)}


def all_sections(section: type[Section]) -> set[type[Section]]:
    found = {section}
    for key in section.model_fields:
        for inner in choices(section, key):
            found |= all_sections(inner)
    return found


def test_the_reference_has_every_section() -> None:
    in_unions = {choice for section, key, _ in UNIONS.values() for choice in choices(section, key)}
    assert set(reference()) == {*REFERENCE, *UNIONS}
    assert all_sections(Config) | all_sections(MlmRunConfig) == {*REFERENCE.values()} | in_unions


@pytest.mark.parametrize("title", REFERENCE)
def test_the_reference_has_every_key_with_its_default(title: str) -> None:
    section = REFERENCE[title]
    written = {code(key)[0]: default for key, default, *_ in reference()[title]}
    assert list(written) == list(section.model_fields)
    for key, default in written.items():
        if section.model_fields[key].is_required():
            assert default == "required", key
        else:
            assert from_yaml(code(default)[0], key) == default_of(section, key), key


@pytest.mark.parametrize("title", UNIONS)
def test_the_reference_has_every_key_of_sources_and_recipes(title: str) -> None:
    section, key, tag = UNIONS[title]
    written = {code(name)[0]: code(keys) for name, keys, *_ in reference()[title]}
    known = {}
    for choice in choices(section, key):
        (name,) = get_args(choice.model_fields[tag].annotation)
        fields = {field: info for field, info in choice.model_fields.items() if field != tag}
        known[name] = {field: ... if info.is_required() else default_of(choice, field) for field, info in fields.items()}
    assert list(written) == list(known)
    for name, entries in written.items():
        shown: dict[str, Any] = {}
        for entry in entries:
            shown |= from_yaml(entry, name) if ":" in entry else {entry: ...}
        assert shown == known[name]


# Paths and rooms


def test_every_path_and_anchor_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", README, re.M)}
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (ROOT / link).exists(), link
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    folders = {"raykd", "configs", "cluster", "benchmarks", "tests", ".ci"}
    named = [word for text in code(prose) for word in text.split() if word.partition("/")[0] in folders and "/" in word]
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_house_has_these_rooms_and_imports_point_down_its_table() -> None:
    _, *rows = table_under("How it is built")
    floors = {Path(path).parts[1].removesuffix(".py"): floor for floor, row in enumerate(rows) for path in code(row[0])}
    rooms = {path.stem for path in (ROOT / "raykd").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(floors) == rooms - {"__init__"}
    for file in (ROOT / "raykd").rglob("*.py"):
        room = file.relative_to(ROOT / "raykd").parts[0].removesuffix(".py")
        for imported in _imports(file) & set(floors):
            assert room == "__init__" or floors[imported] >= floors[room], f"{file} imports raykd.{imported}"


def _imports(file: Path) -> set[str]:
    """Rooms that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "raykd":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module.removeprefix("raykd.").partition(".")[0]} if node.module.startswith("raykd.") else set()
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("raykd.")}
    return names


def test_nothing_names_a_place_on_our_machines() -> None:
    assert not re.search(r"/(home|root|opt|work|tmp|Users)/", README)
