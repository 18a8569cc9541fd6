"""Configs in, one line for every mistake out."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from raykd.config import Config, dump_yaml, load_config
from raykd.config.data import CommonVoiceSource, DemoSource, HuggingFaceSource, ManifestSource, WebDatasetSource
from raykd.config.mistakes import got
from raykd.config.schedule import ScheduleConfig
from raykd.config.yaml_text import from_yaml, to_yaml
from raykd.data.sources.recognise import with_speech_kinds
from raykd.errors import UserError
from raykd.parts.inputs.spec_augment import SpecAugment
from raykd.parts.recipes.kd import KdRecipe
from raykd.parts.recipes.terms import TermsRecipe
from raykd.parts.students.layer_copy import LayerCopy
from tests.terms import with_names

GOOD = """
data: {source: demo, language: cs}
teacher: {model: openai/whisper-tiny}
train: {steps: 100}
"""


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text(GOOD)
    return file


def mistakes(file: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(str(file), overrides)
    return str(caught.value).splitlines()


def mistake(file: Path, *overrides: str) -> str:
    """The only mistake, without the command line's or the file's name."""
    (line,) = mistakes(file, *overrides)
    origin, _, rest = line.partition(": ")
    assert origin in {"command line", str(file)}
    return rest


# What is read


def test_defaults_and_overrides(config_file: Path) -> None:
    config = load_config(
        str(config_file), ["train.lr=1e-4", "train.betas=[0.9, 0.98]", "student.decoder_layers=[0, 5]", "seed=3"]
    )
    assert config.train.lr == 1e-4
    assert config.train.betas == (0.9, 0.98)
    assert config.student == LayerCopy(decoder_layers=(0, 5))
    assert config.seed == 3
    assert config.data.source == (DemoSource(),)
    assert config.objective == KdRecipe(recipe="kd")


def test_an_override_makes_the_section_it_needs(config_file: Path) -> None:
    config = load_config(str(config_file), ["data.spec_augment.time_masks=3", "evaluation.normalizer=basic"])
    assert config.inputs == (SpecAugment(time_masks=3),)
    assert config.evaluation.normalizer == "basic"


@pytest.mark.parametrize("levels", [9, 15])
@pytest.mark.parametrize("key", ["parts", "teacher", "train.steps", "data.test_splits", "objective.recipe", "data.source.kind"])
@pytest.mark.parametrize("form", ["[{}]", "{{{}}}", "{{<<: [{}]}}"])
def test_aliases_of_aliases_are_answered_at_once(tmp_path: Path, key: str, levels: int, form: str) -> None:
    last = "[x]" if form == "[{}]" else "{x: y}"
    lines = [f"a0: &a0 {last}"]
    for level in range(1, levels):
        several = [f"*a{level - 1}"] * 10
        if form.startswith("{{{"):
            several = [f"k{number}: {alias}" for number, alias in enumerate(several)]
        lines.append(f"a{level}: &a{level} {form.format(', '.join(several))}")
    *above, name = key.split(".")
    lines += [f"{'  ' * depth}{part}:" for depth, part in enumerate(above)]
    lines.append(f"{'  ' * len(above)}{name}: *a{levels - 1}")
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    began = time.monotonic()
    with pytest.raises(UserError, match="aliases within aliases stand for over 1000000 values"):
        load_config(str(tmp_path / "c.yaml"))
    assert time.monotonic() - began < 5


def test_an_alias_of_itself_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"^c: line 1: not valid YAML \(aliases within aliases stand for over"):
        from_yaml("a: &a [1, *a]", "c")


def test_a_long_value_is_cut_while_it_is_written() -> None:
    value: Any = ["x"]
    for _ in range(30):
        value = [value] * 10
    assert got(value) == ("[" * 31 + '"x"], ["x"], ["x"], ["x"], ["x"]')[:57] + "..."
    assert got({"a": 1}) == '{"a": 1}'


def test_an_override_reaches_one_of_two_aliased_sections(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        GOOD + "objective:\n  recipe: kd\n  lambda_ce: &s {start: 1, end: 0}\n  lambda_kl: *s\n",
    )
    config = load_config(str(file), ["objective.lambda_kl.end=2"])
    assert isinstance(config.objective, KdRecipe)
    assert config.objective.lambda_ce == ScheduleConfig(start=1, end=0)
    assert config.objective.lambda_kl == ScheduleConfig(start=1, end=2)


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("hf:google/fleurs", HuggingFaceSource(path="google/fleurs")),
        ("speech/train.jsonl", ManifestSource(path="speech/train.jsonl")),
        ("s3://bucket/speech/*.parquet", ManifestSource(path="s3://bucket/speech/*.parquet")),
        ("s3://b/train.jsonl.gz?region=eu", ManifestSource(path="s3://b/train.jsonl.gz?region=eu")),
        ("shards/000.tar.gz", WebDatasetSource(path="shards/000.tar.gz")),
        ("{path: speech/train.csv}", ManifestSource(path="speech/train.csv")),
        ("release", CommonVoiceSource(path="release")),
        ("{path: release, language: cs}", CommonVoiceSource(path="release", language="cs")),
    ],
)
def test_a_source_may_be_written_short(config_file: Path, written: str, source: Any) -> None:
    (config_file.parent / "release" / "clips").mkdir(parents=True)
    (config_file.parent / "release" / "train.tsv").touch()
    assert with_speech_kinds(load_config(str(config_file), [f"data.source={written}"]).data).source == (source,)


def test_terms_need_no_recipe_name(config_file: Path) -> None:
    config = load_config(str(config_file), ["objective={terms: [{kind: ce}, {kind: kl, weight: 2}]}"])
    assert isinstance(config.objective, TermsRecipe)
    assert [term.weight for term in config.objective.terms] == [1.0, 2.0]


def test_the_resolved_config_reads_back(config_file: Path) -> None:
    config = load_config(str(config_file), ["name='1e5'", "data.language=no", "data.source=[demo, a.jsonl]", "train.lr=1e-5"])
    copy = config_file.parent / "resolved.yaml"
    copy.write_text(dump_yaml(config))
    assert load_config(str(copy)) == config
    assert Config.model_validate(yaml.safe_load(copy.read_text())) == config  # also for readers of YAML 1.1


def test_a_teacher_config_is_found_beside_its_config(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = config_file.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config_file.write_text(GOOD.replace("model: openai/whisper-tiny", "model: teacher.yaml"))
    assert mistake(config_file) == f"teacher.model: no such file: {config_file.parent / 'teacher.yaml'}"
    (config_file.parent / "teacher.yaml").write_text(GOOD)
    config = load_config(str(config_file))
    assert config.teacher is not None
    assert config.teacher.model == str(config_file.parent / "teacher.yaml")


# YAML 1.2


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = """{a: no, b: on, c: y, d: 1e-4, e: "1e5", f: 010, g: 1:30, h: 2024-01-31, i: true, j: ~, k: 0x1f, l: .5, m: 0o17}"""
    assert from_yaml(text, "text") == {
        **{"a": "no", "b": "on", "c": "y", "d": 1e-4, "e": "1e5", "f": 10, "g": "1:30", "h": "2024-01-31"},
        **{"i": True, "j": None, "k": 31, "l": 0.5, "m": 15},
    }


@pytest.mark.parametrize(
    "text", ["1e5", "no", "on", "1:30", "010", "0o17", "1_000", "2024-01-31", "~", "", "null", "true", ".5", "+1", "<<"]
)
def test_text_stays_text_in_both_versions_of_yaml(text: str) -> None:
    assert from_yaml(to_yaml([text]), "text") == [text]
    assert yaml.safe_load(to_yaml([text])) == [text]


def test_norwegian_is_a_language(config_file: Path) -> None:
    config_file.write_text(GOOD.replace("language: cs", "language: no, mix: {shares: {no: 1, cs: 2}}"))
    config = load_config(str(config_file))
    assert config.data.language == "no"
    assert config.data.mix is not None
    assert config.data.mix.shares == {"no": 1.0, "cs": 2.0}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: [1,\n", "line 3: not valid YAML (expected the node content, but found '<stream end>')"),
        ("a: 1\nb: c: d\n", "line 2: not valid YAML (mapping values are not allowed here)"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: not valid YAML (the key `c` comes twice)"),
        ("a: !!python/name:os.system\n", "line 1: not valid YAML (could not determine a constructor for the tag"),
        ("a: \x07", "not valid YAML (unacceptable character"),
        ("- a\n- b\n", 'must hold `key: value` lines at the top level (got ["a", "b"])'),
        ("", "must hold `key: value` lines at the top level (got null)"),
    ],
)
def test_bad_yaml_is_one_line_with_file_and_line(config_file: Path, text: str, complaint: str) -> None:
    config_file.write_text(text)
    assert mistake(config_file).startswith(complaint)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert mistake(missing) == "cannot be read (No such file or directory); give an existing YAML file"
    assert mistake(tmp_path) == "cannot be read (Is a directory); give an existing YAML file"
    missing.write_bytes(b"name: \xff\xfe")
    assert mistake(missing) == "cannot be read (not UTF-8 text); give a YAML file"


# What is refused: override, and the line it gives (after the file or "command line")

TRAIN_KEYS = (
    "batch_size, betas, checkpoint_every, clip_norm, compile, epochs, eps, eval_every, keep_checkpoints, lr, lr_schedule, "
    "micro_batch_size, precision, record_ids, steps, warmup_steps, weight_decay, zero_stage"
)
ROOT_KEYS = (
    "cache, cluster, data, evaluation, inputs, label, name, objective, output_dir, parts, seed, student, "
    "teacher, tracking, train"
)
KINDS = "manifest, common_voice, audio_folder, webdataset, kaldi, huggingface, demo, labels or auto"

REFUSED = {
    # unknown keys
    "train.batchsize=1": f"train.batchsize: unknown key; did you mean train.batch_size? known here: {TRAIN_KEYS}",
    "train.zzz=1": f"train.zzz: unknown key; known here: {TRAIN_KEYS}",
    "lr=1": f"lr: unknown key; did you mean train.lr? known here: {ROOT_KEYS}",
    "trian.lr=1": f"trian: unknown key; did you mean train? known here: {ROOT_KEYS}",
    "data.source={kind: demo, hour: 2}": (
        "data.source.hour: unknown key; did you mean data.source.hours? "
        "known here: held_out_words, hours, kind, kinds, languages, seed"
    ),
    "data.source=[demo, {path: a.csv, text: t}]": (
        "data.source[1].text: unknown key; did you mean data.source.columns.text? known here: columns, kind, path"
    ),
    "objective={recipe: kd, lambda_k: 1}": (
        "objective.lambda_k: unknown key; did you mean objective.lambda_kl? "
        "known here: label_smoothing, lambda_ce, lambda_kl, recipe, temperature"
    ),
    "objective={terms: [{kind: ce}, {kind: kl, weight: {start: 1, ends: 0}}]}": (
        "objective.terms[1].weight.ends: unknown key; did you mean objective.terms[1].weight.end? "
        "known here: after, begin, by, end, kind, start, until"
    ),
    "train.1=2": f"train.1: unknown key; known here: {TRAIN_KEYS}",
    "train={1: 2, steps: 3}": "train.1: a key must be text; put it in quotes",
    # names out of a fixed set
    "data.source={kind: manifst, path: a}": f'data.source.kind: must be {KINDS} (got "manifst")',
    "data.source={}": f"data.source.kind: required, but not given; it is {KINDS}",
    "objective.recipe=kdd": 'objective.recipe: must be <recipes> (got "kdd")',
    "objective=kdd": 'objective.recipe: must be <recipes> (got "kdd")',
    "objective.temperature=2": "objective.recipe: required, but not given; it is <recipes>",
    "objective={terms: [{kind: mse}]}": 'objective.terms[0].kind: must be <terms> (got "mse")',
    "objective={terms: [{kind: ce}, {kind: kl, target: lm}]}": (
        "objective: no target is named 'lm'; give it in objective.targets (known: teacher)"
    ),
    "train.zero_stage=4": "train.zero_stage: must be 0, 1, 2 or 3 (got 4)",
    "train.precision=float16": 'train.precision: must be auto, float32 or bfloat16 (got "float16")',
    # types
    "train.lr=fast": 'train.lr: must be a number (got "fast")',
    "train.lr=": "train.lr: must be a number (got null)",
    "train.steps=1.5": "train.steps: must be a whole number (got 1.5)",
    "train.steps=true": "train.steps: must be a number (got true)",
    "train.zero_stage=true": "train.zero_stage: must be a number (got true)",
    "train.betas=[true, 0.9]": "train.betas[0]: must be a number (got true)",
    "data.source='[z-a].jsonl'": "data.source: [z-a] is no set of characters of a pattern (bad character range z-a); "
    "correct the path",
    "train.record_ids=perhaps": 'train.record_ids: must be true or false (got "perhaps")',
    "name=12": "name: must be text (got 12); put it in quotes",
    "data.language=false": "data.language: must be text (got false); put it in quotes",
    "data.test_splits=test": 'data.test_splits: must be a list (got "test"); write [test]',
    "tracking=off": 'tracking: must be a section of `key: value` (got "off")',
    "objective=5": "objective: must be a section of `key: value` (got 5)",
    "data.source=5": "data.source: must be a section of `key: value` (got 5)",
    "student.decoder_layers=two": 'student.decoder_layers: must be a whole number or a list (got "two")',
    "student.decoder_layers=[0, x]": 'student.decoder_layers[1]: must be a whole number (got "x")',
    "objective={terms: [{kind: ce, weight: high}]}": (
        'objective.terms[0].weight: must be a number or a section of `key: value` (got "high")'
    ),
    # ranges
    "train.lr=-1": "train.lr: must be greater than 0 (got -1)",
    "train.lr=.nan": "train.lr: must be a finite number (got NaN)",
    "train.lr=.inf": "train.lr: must be a finite number (got Infinity)",
    "train.betas=[0.9]": "train.betas[1]: required, but not given",
    "train.betas=[0.9, 1]": "train.betas[1]: must be less than 1 (got 1)",
    "train.betas=[0.1, 0.2, 0.3]": "train.betas: must be at most 2 long (got [0.1, 0.2, 0.3])",
    "train.warmup_steps=-5": "train.warmup_steps: must be at least 0 (got -5)",
    "cluster.max_failures=-2": "cluster.max_failures: must be at least -1 (got -2)",
    "student.decoder_layers=0": "student.decoder_layers: must be at least 1 (got 0)",
    "student.decoder_layers=[]": "student.decoder_layers: must be at least 1 long (got [])",
    "student.decoder_layers=[-1, 0]": "student.decoder_layers[0]: must be at least 0 (got -1)",
    "objective={terms: [{kind: ce, weight: -1}]}": "objective.terms[0].weight: must be at least 0 (got -1)",
    "objective={terms: []}": "objective.terms: must be at least 1 long (got [])",
    "data.source=[]": "data.source: must be at least 1 long (got [])",
    "data.source={kind: demo, languages: []}": "data.source.languages: must be at least 1 long (got [])",
    "data.mix={shares: {cs: 0}}": "data.mix.shares.cs: must be greater than 0 (got 0)",
    "data.mix={shares: {}}": "data.mix.shares: must be at least 1 long (got {})",
    "evaluation.speed_batch_sizes=[1, 0]": "evaluation.speed_batch_sizes[1]: must be at least 1 (got 0)",
    "output_dir=": "output_dir: must be text (got null)",
    "output_dir=''": 'output_dir: must be text that is not empty (got "")',
    "name=..": "name: must be letters, digits, `.`, `_` and `-`, with a letter or digit first (got '..')",
    "name=a/b": "name: must be letters, digits, `.`, `_` and `-`, with a letter or digit first (got 'a/b')",
    # keys that must agree
    "student.encoder_layers=[1, 1]": "student.encoder_layers: a layer is listed twice (got [1, 1])",
    "train.micro_batch_size=32": "train.micro_batch_size: must be at most batch_size, 16 (got 32)",
    "train.warmup_steps=101": "train.warmup_steps: must be at most steps, 100 (got 101)",
    "train.epochs=1": "train: give exactly one of `epochs` and `steps`",
    "student={init: scratch, scratch: {heads: 3}}": "student.scratch.heads: must be a divisor of width, 128 (got 3)",
    "data.min_duration_s=30": "data.min_duration_s: must be less than max_duration_s, 30 (got 30)",
    "data.mix={}": "data.mix: give exactly one of `temperature` and `shares`",
    "data.mix={temperature: 2, shares: {cs: 1}}": "data.mix: give exactly one of `temperature` and `shares`",
    "teacher=": "teacher: required, because student.kind is `layer_copy`; give teacher.model, or student.init: scratch",
    "objective={terms: [{kind: kl, weight: {start: 1}}]}": "objective.terms[0].weight: a linear schedule needs `end`",
}


def refused(override: str) -> str:
    """The line, with the parts that are known now."""
    return with_names(REFUSED[override])


@pytest.mark.parametrize("override", REFUSED)
def test_a_mistake_is_one_line_that_names_its_key(config_file: Path, override: str) -> None:
    assert mistake(config_file, override) == refused(override)


@pytest.mark.parametrize("override", REFUSED)
def test_a_mistake_in_a_file_reads_the_same(config_file: Path, override: str) -> None:
    tree = yaml.safe_load(GOOD)
    key, _, text = override.partition("=")
    node = tree
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = from_yaml(text, "value")
    config_file.write_text(to_yaml(tree))
    assert mistakes(config_file) == [f"{config_file}: {refused(override)}"]


def test_mistakes_say_whether_the_file_or_the_command_line_made_them(config_file: Path) -> None:
    config_file.write_text(GOOD.replace("steps: 100", "steps: 0"))
    assert mistakes(config_file, "train.lr=x", "seed=-1") == [
        "command line: seed: must be at least 0 (got -1)",
        f"{config_file}: train.steps: must be at least 1 (got 0)",
        'command line: train.lr: must be a number (got "x")',
    ]


def test_missing_sections_and_keys(config_file: Path) -> None:
    config_file.write_text("data: {language: cs}")
    assert mistakes(config_file) == [
        f"{config_file}: train: required, but not given",
        f"{config_file}: data.source: required, but not given",
    ]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("train.lr", "train.lr: an override has the form key=value, such as train.lr=1e-4"),
        ("=3", "=3: an override has the form key=value, such as train.lr=1e-4"),
        ("seed.x=3", "seed.x=3: seed is 7, not a section; give the whole of seed"),
        ("data.source.hours=2", 'data.source.hours=2: data.source is "demo", not a section; give the whole of data.source'),
        ("train.betas=[1", "train.betas=[1: line 1: not valid YAML (expected ',' or ']', but got '<stream end>')"),
    ],
)
def test_overrides_that_cannot_be_applied(config_file: Path, override: str, complaint: str) -> None:
    config_file.write_text(GOOD + "seed: 7\n")
    assert mistakes(config_file, override) == [complaint]


def test_the_last_override_of_a_key_wins(config_file: Path) -> None:
    assert load_config(str(config_file), ["seed=1", "seed=2"]).seed == 2
