"""The READMEs tell the truth: commands parse, configs load, links lead somewhere, keys exist, the reference is the config."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from raykd import compare, config_help, demo_data, distill, evaluate
from raykd.cli import VERBS, run_parser
from raykd.comparing.runs import jobs_of
from raykd.config import Config, load_config, load_mlm_config
from raykd.config.compare import CompareConfig
from raykd.config.data import DataConfig
from raykd.config.described import ROOTS, places
from raykd.config.load import parse, read_yaml
from raykd.config.reference import anchor, page
from raykd.config.tune import SweepConfig
from raykd.config.yaml_text import from_yaml
from raykd.data.batches import Batch
from raykd.parts.clock import Clock
from raykd.parts.distribution import LogitsDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.outside import load_parts_file
from raykd.parts.rooms import ROOMS
from raykd.training.objective import ActiveTerm, objective
from raykd.tuning.space import Space
from tests.outside import forgotten, readme_method

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for folder in ("README.md", "cluster/README.md", "configs/README.md", "raykd/**/README.md")
    for path in sorted(ROOT.glob(folder))
}
QUICKSTART = "pip install -c constraints.txt -e . && python -m raykd.distill --config configs/quickstart.yaml"
TESTS = "pip install -c constraints.txt -e '.[test]' && pytest"
SMALLEST = {"data": {"source": "demo"}, "teacher": {"model": "t"}, "train": {"steps": 1}}
LONGEST = 180
LONGEST_METHOD = 60


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """Each command of a page's shell blocks, without `ray job submit ... --` in front."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(command) for line in lines for command in line.split(" && ")]
    return [command[command.index("--") + 1 :] if command[0] == "ray" else command for command in words]


ALL_COMMANDS = [command for page in PAGES.values() for command in commands(page)]


def arguments_of(module: str) -> list[list[str]]:
    """Arguments of all commands that run a module, by its name or by its verb."""
    verb = next(verb for verb, (name, _) in VERBS.items() if name == module)
    by_name = [command[3:] for command in ALL_COMMANDS if command[:3] == ["python", "-m", module]]
    return by_name + [command[2:] for command in ALL_COMMANDS if command[:2] == ["raykd", verb]]


def tables(page: str) -> Iterator[tuple[str, list[list[str]]]]:
    """(the last heading in front, rows with the header first) of every table."""
    title, rows = "", []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
            continue
        if rows:
            yield title, [row for row in rows if not set(row[0]) <= {"-", "|", ":"}]
            rows = []
        if found := re.match(r"#+ (.+)", line):
            title = found[1]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)


# Length, and the two commands


def test_the_readme_is_read_to_the_end() -> None:
    assert len(README.splitlines()) <= LONGEST


def test_both_commands_are_on_the_first_screen() -> None:
    first_screen = "\n".join(README.splitlines()[:25])
    assert f"```bash\n{QUICKSTART}\n```" in first_screen
    assert f"<!-- ci: test -->\n```bash\n{TESTS}\n```" in first_screen


# Commands


def test_every_command_is_one_of_ours_or_known() -> None:
    modules = {module for module, _ in VERBS.values()}
    for command in ALL_COMMANDS:
        match command:
            case ["python", "-m", module, *_]:
                assert module in modules
            case ["raykd", verb, *_]:
                assert verb in VERBS
            case _:
                assert command[0] in {"pip", "pytest", "mlflow"}, command


@pytest.mark.parametrize("arguments", arguments_of("raykd.distill"), ids=" ".join)
def test_a_distillation_has_a_config_that_loads(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = distill.parser().parse_intermixed_args(arguments)
    with forgotten():
        load_config(options.config, options.overrides, [str(readme_method(tmp_path)) for _ in options.parts])


def test_the_training_of_a_language_model_has_a_config_that_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for arguments in arguments_of("raykd.train_mlm"):
        options = run_parser("raykd.train_mlm", "", "").parse_intermixed_args(arguments)
        load_mlm_config(options.config, options.overrides)


@pytest.mark.slow
def test_other_commands_parse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments_of("raykd.evaluate")
    for arguments in arguments_of("raykd.evaluate"):
        evaluate._config(evaluate._parse(arguments))
    for arguments in arguments_of("raykd.compare"):
        options = compare._parse(arguments)
        jobs_of(parse(CompareConfig, read_yaml(options.config), options.config, options.arguments), options.config)
    for arguments in arguments_of("raykd.tune"):
        options = run_parser("raykd.tune", "", "").parse_intermixed_args(arguments)
        Space(parse(SweepConfig, read_yaml(options.config), options.config, options.overrides), options.config).check()
    for arguments in arguments_of("raykd.demo_data"):
        assert demo_data._parse(arguments).out
    for arguments in arguments_of("raykd.config_help"):
        config_help.main(arguments)


# The method in one file


def test_the_method_in_the_readme_is_short_and_its_command_names_it(tmp_path: Path) -> None:
    path = readme_method(tmp_path)
    assert len(path.read_text("utf-8").splitlines()) < LONGEST_METHOD
    (arguments,) = [arguments for arguments in arguments_of("raykd.distill") if "name=hard-kd" in arguments]
    assert arguments[arguments.index("--parts") + 1] == path.name


def test_the_method_in_the_readme_is_what_it_says(tmp_path: Path) -> None:
    """0.8 CE + KL times (1 - p[label])^gamma, against plain PyTorch; the second factor is a constant."""
    random = torch.Generator().manual_seed(0)
    hidden_ND, weight_VD, teacher_NV = (
        torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((7, 5), (11, 5), (7, 11))
    )
    labels_1N = torch.randint(11, (1, 7), generator=random)
    batch = Batch(["a"], ["cs"], torch.zeros(1, 1, 1), labels_1N, labels_1N, 1.0)
    with forgotten():
        load_parts_file(str(readme_method(tmp_path)))
        config = Config.model_validate({**SMALLEST, "objective": {"recipe": "hard_kd", "gamma": 1.5}})
        terms = [ActiveTerm(term, term.weight) for term in config.method.terms if isinstance(term.weight, float)]
    hidden_ND.requires_grad_()
    targets = {"teacher": Outputs(LogitsDistribution(teacher_NV))}
    loss, _ = objective(Outputs(hidden_ND=hidden_ND), weight_VD, batch, targets, terms, Clock(0, 10), chunk_tokens=3)
    (gradient_ND,) = torch.autograd.grad(loss, hidden_ND)

    logits_NV = hidden_ND @ weight_VD.T
    log_p_NV, q_NV = (logits_NV / 2).log_softmax(-1), (teacher_NV / 2).softmax(-1)
    p_label_N = logits_NV.softmax(-1).gather(1, labels_1N.T).squeeze(1).detach()
    kl_N = (q_NV * (q_NV.log() - log_p_NV)).sum(-1)
    expected = 0.8 * cross_entropy(logits_NV, labels_1N[0], reduction="sum") + 4 * ((1 - p_label_N) ** 1.5 * kl_N).sum()
    assert loss.item() == pytest.approx(expected.item())
    torch.testing.assert_close(gradient_ND, torch.autograd.grad(expected, hidden_ND)[0])


# Configs, sources, objectives


@pytest.mark.parametrize(("page", "text"), [(name, text) for name, page in PAGES.items() for text in blocks(page, "yaml")])
def test_a_config_in_a_readme_loads(page: str, text: str) -> None:
    parse(Config, from_yaml(text, page), page)


def test_short_and_full_forms_of_sources_are_the_same_kind() -> None:
    rows = next(rows for title, rows in tables(PAGES["raykd/data/README.md"]) if title == "Sources")
    kinds = []
    for _, short, full in rows[1:]:
        (of_short,) = DataConfig.model_validate({"source": code(short)[0]}).source
        (of_full,) = DataConfig.model_validate({"source": from_yaml(code(full)[0], "README.md")}).source
        assert of_short.kind in {of_full.kind, "auto"}
        kinds.append(of_full.kind)
    known = next(place for place in places(Config) if place.path == "data.source[]")
    assert [*kinds, "auto"] == [kind.name for kind in known.kinds]


def test_objectives_in_tables_are_possible() -> None:
    cells = [row[0] for page in PAGES.values() for _, rows in tables(page) for row in rows]
    objectives = [text for cell in cells for text in code(cell) if text.startswith(("{recipe:", "{mlm:"))]
    assert len(objectives) >= 10
    for text in objectives:
        Config.model_validate({**SMALLEST, "objective": from_yaml(text, "README.md")})


def test_every_method_is_in_the_readmes() -> None:
    own = {name for room in ROOMS if room.tag == "recipe" for name, part in room.parts.items() if _is_ours(part)}
    for text in (README, PAGES["raykd/parts/recipes/README.md"]):
        named = {from_yaml(words, "")["recipe"] for words in code(text) if re.fullmatch(r"\{recipe: .*\}", words)}
        assert own - {"terms"} <= named
        assert "`{terms: [...]}`" in text


# The reference


def test_the_reference_is_what_the_docstrings_say() -> None:
    again = "run `python -m raykd.config.reference`"
    assert page(ROOT / "configs") == PAGES["configs/README.md"], again


def test_every_key_says_what_it_is_for() -> None:
    silent = [
        f"{place.path}.{kind.name}.{key.name}"
        for root in ROOTS.values()
        for place in places(root)
        for kind in place.kinds
        for key in (*place.shared, *kind.keys)
        if not key.text and _is_ours(kind.section)
    ]
    assert silent == []


def test_every_key_that_a_readme_names_exists() -> None:
    tops = {name for root in ROOTS.values() for name in root.model_fields}
    known = {path for entry in config_help.entries() for path in (entry.path, entry.in_a_config)}
    short = {"data.spec_augment"}
    named = set()
    for name, text in PAGES.items():
        for words in code(prose(text)):
            path = re.match(r"([a-z_]+)(?:\.[a-z_]+)+(?=$|=|:)", words)
            if path and path[1] in tops and not re.search(r"\.(py|yaml|jsonl?|html|md|[ct]sv)$", path[0]):
                assert path[0] in known | short, f"{name}: {path[0]}"
                named.add(path[0])
    assert len(named) > 20


# Links and rooms


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    for link in re.findall(r"\]\(([^)]+)\)", prose(PAGES[name])):
        path, _, heading = link.partition("#")
        target = folder / path if path else ROOT / name
        assert "://" in link or target.exists(), link
        if heading:
            assert heading in headings(target), link


def headings(path: Path) -> set[str]:
    return {anchor(title) for title in re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)}


@pytest.mark.parametrize("name", PAGES)
def test_every_path_exists(name: str) -> None:
    folders = {"raykd", "configs", "cluster", "benchmarks", "tests", ".ci"}
    named = [word for text in code(prose(PAGES[name])) for word in text.split() if word.partition("/")[0] in folders]
    for path in named:
        assert "/" not in path or (ROOT / path).exists(), path


def test_imports_point_down_the_table_of_the_house() -> None:
    rows = next(rows for title, rows in tables(PAGES["raykd/README.md"]) if title == "Rooms")
    floors = {path.strip("/"): floor for floor, row in enumerate(rows[1:]) for path in code(row[0])}
    files = {str(path.relative_to(ROOT)): path for path in (ROOT / "raykd").rglob("*.py")}
    assert all((ROOT / path).exists() for path in floors)
    for name, path in files.items():
        if name == "raykd/__init__.py":
            continue
        above = _floor(name, floors)
        for imported in _imports(path, files):
            assert _floor(imported, floors) >= above, f"{name} imports {imported}"


def _floor(name: str, floors: dict[str, int]) -> int:
    """A file's own line, else its room's."""
    found = floors.get(name, floors.get("/".join(name.split("/")[:2])))
    assert found is not None, f"{name} is in no line of the table"
    return found


def _imports(path: Path, files: dict[str, Path]) -> Iterator[str]:
    """Files of raykd that a file imports, functions included; `raykd/__init__.py` aside."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "raykd":
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            file = name.replace(".", "/")
            yield from {f"{file}.py", f"{file}/__init__.py"} & (files.keys() - {"raykd/__init__.py"})


def test_the_rooms_of_parts_hold_what_their_table_says() -> None:
    rows = next(rows for title, rows in tables(PAGES["raykd/README.md"]) if title == "Rooms of parts")
    written = {re.sub(r"\W", "", row[0].partition("]")[0]): code(row[2]) for row in rows[1:]}
    known = {room.name: [name for name, part in room.parts.items() if _is_ours(part)] for room in ROOMS}
    assert written == known


def _is_ours(part: type[Any]) -> bool:
    return part.__module__.startswith("raykd.")


def test_the_package_in_the_readme_of_parts_is_one() -> None:
    (text,) = blocks(PAGES["raykd/parts/README.md"], "toml")
    assert tomllib.loads(text)["project"]["entry-points"]["raykd.parts"]


@pytest.mark.parametrize("name", PAGES)
def test_nothing_names_a_place_on_our_machines(name: str) -> None:
    assert not re.search(r"/(home|root|opt|work|tmp|Users)/", PAGES[name])
