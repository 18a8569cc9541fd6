"""Parts of one's own: read from a file, refused with its name and line, taken along to other processes."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from raykd.config import Config, dump_yaml, load_config
from raykd.errors import UserError
from raykd.parts import outside, rooms
from raykd.parts.outside import load_parts_file, outside_hash
from raykd.parts.rooms import ROOMS
from raykd.parts.terms.term import TERMS_ROOM

FOCAL = '''
"""A term of one's own."""

from typing import Literal

from torch import Tensor

from raykd.parts.terms.term import Chunk, TokenTerm


class Focal(TokenTerm):
    """Cross-entropy that counts hard tokens more."""

    kind: Literal["focal"] = "focal"
    gamma: float = 2.0
    """How much more."""

    def values(self, at: Chunk) -> Tensor:
        """See `TokenTerm`."""
        log_N = at.student().log_NV.gather(1, at.labels_N[:, None]).squeeze(1)
        return -((1 - log_N.exp()) ** self.gamma) * log_N
'''
RUN = """
data: {source: demo}
teacher: {model: openai/whisper-tiny}
objective: {terms: [kl, {kind: focal, gamma: 3}]}
train: {steps: 1}
"""


@pytest.fixture(autouse=True)
def rooms_as_before() -> Iterator[None]:
    """What a test lets configs name is forgotten after it."""
    before = [dict(room.parts) for room in ROOMS]
    read = dict(outside._read)
    yield
    for room, parts in zip(ROOMS, before, strict=True):
        room.parts = parts
    for name in outside._read.keys() - read.keys():
        del outside._read[name], sys.modules[name]


def written(folder: Path, text: str = FOCAL, name: str = "focal.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def refusal(path: str) -> str:
    with pytest.raises(UserError) as refused:
        load_parts_file(path)
    assert path in str(refused.value)
    return str(refused.value).removeprefix(f"{path}: ")


def test_a_part_from_a_file_is_named_in_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    written(tmp_path)
    (tmp_path / "run.yaml").write_text("parts: [focal.py]\n" + RUN)
    config = load_config(str(tmp_path / "run.yaml"))  # the file lies beside the config
    _, term = config.method.terms
    assert (term.name, term.kind, getattr(term, "gamma", None)) == ("focal", "focal", 3.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resolved.yaml").write_text(dump_yaml(config))
    assert load_config("resolved.yaml") == config


def test_an_override_adds_a_file_and_mistakes_know_its_parts(tmp_path: Path) -> None:
    path, run = written(tmp_path), tmp_path / "run.yaml"
    run.write_text(RUN)
    with pytest.raises(UserError, match=r"objective\.terms\[1\]\.kind: must be ce, kl, .* \(got \"focal\"\)$"):
        load_config(str(run))
    load_config(str(run), [f"parts=[{path}]"])
    run.write_text(RUN.replace("gamma: 3", "gama: 3"))
    with pytest.raises(
        UserError, match=r"terms\[1\]\.gama: unknown key; did you mean objective\.terms\[1\]\.gamma\? known here: con"
    ):
        load_config(str(run), [f"parts=[{path}]"])
    run.write_text(RUN.replace("kind: focal", "kind: fokal"))
    with pytest.raises(UserError, match=r"\.kind: must be ce, .* or focal \(got \"fokal\"\)$"):
        load_config(str(run), [f"parts=[{path}]"])


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    advice = "give the path of a .py file with parts"
    assert refusal(str(tmp_path / "gone.py")) == f"cannot be read (No such file or directory); {advice}"
    assert refusal(str(tmp_path)) == f"cannot be read (Is a directory); {advice}"
    (tmp_path / "latin.py").write_bytes(b'"""caf\xe9"""')
    assert refusal(str(tmp_path / "latin.py")) == f"cannot be read (not UTF-8 text); {advice}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\ndef broken(:\n", "line 2: SyntaxError: "),
        ("x = 1\n\nimport no_such_module\n", "line 3: ModuleNotFoundError: No module named 'no_such_module'; mend the file"),
        ("def deep():\n    return 1 / 0\n\n\ndeep()\n", "line 2: ZeroDivisionError: division by zero; mend the file"),
        ("import json\n\njson.loads('{')\n", "line 3: JSONDecodeError: "),
        ("raise KeyError('a')\n", "line 1: KeyError: 'a'; mend the file"),
        (FOCAL.replace("gamma: float", "gamma: flaot"), "line 15: NameError: name 'flaot' is not defined; mend the file"),
        ("class Focal: ...\n", "no part in it; derive a class from Term, Target, Recipe, ... and give it a kind of its own"),
        ("", "no part in it; derive a class"),
        (FOCAL.replace('"focal"', '"kl"'), "Focal: terms has a part named kl already, in "),
        (FOCAL.replace('Literal["focal"]', 'Literal["focal", "soft"]'), "Focal: a part of terms needs a name: kind: Lit"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    message = refusal(written(tmp_path, text))
    assert message.startswith(complaint)
    assert "\n" not in message
    assert not [name for name in sys.modules if name.startswith("raykd_parts_") and name not in outside._read]


def test_a_file_that_was_refused_can_be_mended(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, "x = \n")).startswith("line 1: SyntaxError")
    load_parts_file(written(tmp_path))
    first = TERMS_ROOM.parts["focal"]
    load_parts_file(written(tmp_path))
    assert TERMS_ROOM.parts["focal"] is first, "the same text is the same module"
    load_parts_file(written(tmp_path, FOCAL.replace("2.0", "4.0")))
    assert TERMS_ROOM.parts["focal"].model_fields["gamma"].default == 4.0


def test_two_files_cannot_have_a_part_of_one_name(tmp_path: Path) -> None:
    load_parts_file(written(tmp_path))
    message = refusal(written(tmp_path, FOCAL + "\n", "other.py"))
    assert message == f"Focal: terms has a part named focal already, in {tmp_path}/focal.py"


def focal_config(path: str, **changes: Any) -> Config:
    load_parts_file(path)
    terms = [{"kind": "focal", "gamma": 3}, "ce"]
    tree = {"data": {"source": "demo"}, "student": "scratch", "objective": {"terms": terms}, "train": {"steps": 1}}
    return Config.model_validate({**tree, **changes})


@pytest.mark.slow
def test_a_part_travels_into_a_process_that_does_not_have_its_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    sent = pickle.dumps(focal_config(path))
    Path(path).unlink()
    program = (
        "import pickle, sys\n"
        "config = pickle.load(sys.stdin.buffer)\n"
        "focal, ce = config.method.terms\n"
        "import torch\n"
        "from tests.terms import loss_and_sums\n"
        "hidden_ND, weight_VD = torch.eye(3), torch.eye(3)\n"
        "loss, _ = loss_and_sums(hidden_ND, weight_VD, torch.tensor([0, 1, 2]), {}, [focal])\n"
        "from raykd.parts.outside import outside_hash\n"
        "print(focal.gamma, focal.name, focal.weight, sorted(focal.model_fields_set), type(focal).__name__, float(loss) > 0)\n"
        "print(outside_hash(config))\n"
        "print(pickle.loads(pickle.dumps(config)) == config)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=sent, capture_output=True, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    facts, digest, same = done.stdout.decode().splitlines()
    assert facts == "3.0 focal 1.0 ['gamma', 'kind', 'name'] Focal True"
    assert digest == outside_hash(pickle.loads(sent))
    assert same == "True"


def test_the_hash_of_outside_parts_follows_their_text(tmp_path: Path) -> None:
    first = outside_hash(focal_config(written(tmp_path)))
    assert first == outside_hash(focal_config(written(tmp_path, name="focal.py")))
    second = outside_hash(focal_config(written(tmp_path, FOCAL.replace("2.0", "4.0"))))
    assert len({first, second, ""}) == 3
    assert outside_hash(focal_config(written(tmp_path), objective={"terms": ["ce"]})) == "", "named in no config, of no account"
    assert outside_hash(focal_config(written(tmp_path), objective="ce")) == ""


def test_parts_in_lists_and_mappings_are_of_account(tmp_path: Path) -> None:
    text = """
from typing import Literal
from raykd.parts.inputs.input import Input
from raykd.parts.targets.target import LiveTarget, Target

class Louder(Input):
    kind: Literal["louder"] = "louder"

class Silence(Target):
    kind: Literal["silence"] = "silence"
    def build(self, on):
        return None
"""
    load_parts_file(written(tmp_path, text))
    config = focal_config(written(tmp_path, FOCAL, "terms.py"), objective="ce")
    assert outside_hash(config) == ""
    by_input = outside_hash(Config.model_validate({**config.model_dump(), "inputs": ["louder"]}))
    objective = {"terms": [{"kind": "kl", "target": "a"}], "targets": {"a": "silence"}}
    assert by_input == outside_hash(Config.model_validate({**config.model_dump(), "objective": objective})) != ""


def test_parts_of_installed_packages_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("focal_of_a_package")
    module.__file__ = written(tmp_path)
    exec(compile(FOCAL, module.__file__, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    installed = [EntryPoint("focal", module.__name__, rooms.ENTRY_POINTS)]
    monkeypatch.setattr(rooms, "entry_points", lambda group: installed)
    run = tmp_path / "run.yaml"
    run.write_text(RUN)
    config = load_config(str(run))
    assert outside_hash(config) != ""
    assert pickle.loads(pickle.dumps(config)) == config
    installed.append(EntryPoint("gone", "no_such_package", rooms.ENTRY_POINTS))
    with pytest.raises(
        UserError, match=r"^installed parts: no_such_package \(entry point gone of raykd\.parts\): No module named"
    ):
        load_config(str(run))


def test_a_part_that_lacks_a_method_is_refused_before_anything_trains(tmp_path: Path) -> None:
    text = """
from typing import Literal
from raykd.parts.terms.term import TokenTerm

class Empty(TokenTerm):
    kind: Literal["empty"] = "empty"
"""
    assert "Empty: lacks values; " in refusal(written(tmp_path, text))
