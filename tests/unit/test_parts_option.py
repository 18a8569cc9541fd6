"""`--parts FILE`, the copy that a run keeps of such a file, and parts that an installed package brings."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from raykd.config import load_config
from raykd.errors import UserError
from raykd.parts.outside import load_parts_file
from raykd.runs import opened_run
from raykd.tracking.progress import Progress
from tests.outside import ROOT, forgotten, readme_method

pytestmark = pytest.mark.slow

RUN = """
name: hard
data: {source: demo}
teacher: {model: openai/whisper-tiny}
objective: {recipe: hard_kd, gamma: 1.5}
train: {steps: 1}
tracking: {mlflow: false}
"""


@pytest.fixture(autouse=True)
def rooms_as_before() -> Iterator[None]:
    with forgotten():
        yield


@pytest.fixture
def method_file(tmp_path: Path) -> Path:
    return readme_method(tmp_path)


def run_file(folder: Path, more: str = "") -> str:
    path = folder / "run.yaml"
    path.write_text(RUN + more)
    return str(path)


def test_the_option_is_a_line_of_the_config(tmp_path: Path, method_file: Path) -> None:
    by_option = load_config(run_file(tmp_path), ["train.lr=0.5"], [str(method_file)])
    by_key = load_config(run_file(tmp_path, f"parts: [{method_file}]"), ["train.lr=0.5"])
    assert by_option == by_key
    assert by_option.parts == (str(method_file),)


def test_the_option_adds_to_what_config_and_overrides_name(tmp_path: Path, method_file: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(method_file.read_text().replace("hard", "soft").replace("Hard", "Soft"))
    assert load_config(run_file(tmp_path, f"parts: [{other}]"), [], [str(method_file)]).parts == (str(other), str(method_file))
    assert load_config(run_file(tmp_path), [f"parts=[{other}]"], [str(other), str(method_file)]).parts == (
        str(other),
        str(method_file),
    )


def test_a_file_that_is_not_there_or_not_local_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.py: cannot be read"):
        load_config(run_file(tmp_path), [], ["gone.py"])
    for remote in ("s3://bucket/my_method.py", "https://example.org/my_method.py"):
        with pytest.raises(UserError, match="local files only"):
            load_config(run_file(tmp_path), [], [remote])


def test_the_banner_says_name_and_hash(method_file: Path) -> None:
    file = load_parts_file(str(method_file))
    assert file.label == f"my_method.py ({file.digest[:8]})"


def test_a_run_is_resumed_from_its_own_copy(tmp_path: Path, method_file: Path) -> None:
    runs = f"output_dir={tmp_path}/runs"
    quiet = Progress(quiet=True)
    with opened_run(load_config(run_file(tmp_path), [runs], [str(method_file)]), False, 1, quiet) as (_, run):
        assert run.read_text("parts/my_method.py") == method_file.read_text()
    method_file.unlink()
    config = load_config(run.config_path)
    assert config.parts == (f"{run.path}/parts/my_method.py",)
    with opened_run(config, True, 1, quiet) as (resumed, again):
        assert again == run
        assert resumed.objective == config.objective


def test_a_copy_stays_when_the_file_is_changed(tmp_path: Path, method_file: Path) -> None:
    """A resume with another text is refused later, by its hash; the text that the run was made with is not lost by it."""
    arguments = run_file(tmp_path), [f"output_dir={tmp_path}/runs"], [str(method_file)]
    quiet = Progress(quiet=True)
    before = method_file.read_text()
    with opened_run(load_config(*arguments), False, 1, quiet):
        pass
    method_file.write_text(before.replace("weight=0.8", "weight=0.7"))
    with opened_run(load_config(*arguments), True, 1, quiet) as (_, run):
        assert run.read_text("parts/my_method.py") == before


USE = """
import pickle, sys
from raykd.config import load_config
config = load_config("configs/quickstart.yaml", ["objective={recipe: hard_kd}"])
print(type(config.objective).__module__, [term.name for term in pickle.loads(pickle.dumps(config)).method.terms])
"""


def test_a_package_brings_parts_wherever_it_is_installed(tmp_path: Path) -> None:
    """As pip would install the package in raykd/parts/README.md: its files, and what they are entered as."""
    text = (ROOT / "raykd/parts/README.md").read_text("utf-8")
    project = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])["project"]
    ((name, module),) = project["entry-points"]["raykd.parts"].items()
    package, _, inner = module.partition(".")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    readme_method(tmp_path).rename(tmp_path / package / f"{inner}.py")
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[raykd.parts]\n{name} = {module}\n")
    added = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = subprocess.run([sys.executable, "-c", added + USE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{module} ['ce', 'hard_kl']\n", done.stderr
