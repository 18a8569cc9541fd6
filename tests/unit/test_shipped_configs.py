"""Every config we ship loads, and says what its comments promise."""

from pathlib import Path

import pytest

from raykd.comparing.runs import jobs_of
from raykd.config import RunConfig, dump_yaml, load_config, load_mlm_config
from raykd.config.compare import CompareConfig
from raykd.config.data import CommonVoiceSource, LabelsSource
from raykd.config.load import parse, read_yaml
from raykd.config.text import TextFilesSource
from raykd.config.tune import SweepConfig
from raykd.config.yaml_text import from_yaml
from raykd.parts.recipes.kd import KdRecipe
from raykd.parts.recipes.mlm_kd import MlmKdRecipe
from raykd.parts.students.experts import Experts
from raykd.parts.students.layer_copy import LayerCopy
from raykd.parts.students.pretrained import Pretrained
from raykd.tuning.space import Space

CONFIGS = Path(__file__).parents[2] / "configs"
COMPARISONS = sorted(path for path in CONFIGS.glob("*.yaml") if "methods" in from_yaml(path.read_text(), path.name))
SWEEPS = sorted(path for path in CONFIGS.glob("*.yaml") if "search" in from_yaml(path.read_text(), path.name))
RUNS = sorted(set(CONFIGS.glob("*.y*ml")) - set(COMPARISONS) - set(SWEEPS))


def load(path: Path) -> RunConfig:
    """A config of either kind: one with a text section trains a masked language model."""
    tree = from_yaml(path.read_text(), str(path))
    return load_mlm_config(str(path)) if "text" in tree else load_config(str(path))


@pytest.mark.slow
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_it_loads_and_reads_back(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no config depends on the folder it is loaded from
    config = load(path)
    resolved = tmp_path / "config.yaml"
    resolved.write_text(dump_yaml(config))
    assert load(resolved) == config


def test_every_config_has_its_own_name() -> None:
    names = [load(path).name for path in RUNS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.name)
def test_every_run_of_a_comparison_has_a_config(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compare = parse(CompareConfig, read_yaml(str(path)), str(path))
    jobs = jobs_of(compare, str(path))
    assert {job.method for job in jobs} == set(compare.methods)
    assert len({job.config.name for job in jobs if job.model is None}) == len([job for job in jobs if job.model is None])


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_point_of_a_sweep_has_a_config(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = parse(SweepConfig, read_yaml(str(path)), str(path))
    assert sweep.name == path.stem.replace("_", "-")
    assert len(Space(sweep, str(path)).check()) >= 2 * len(sweep.search)


def test_distilwhisper_has_the_published_numbers() -> None:
    for name, rows, dev, languages in (("3k", 3000, 500, 8), ("10k", 10_000, 1000, 8), ("28k", 28_000, 1000, 3)):
        config = load_config(str(CONFIGS / f"distilwhisper_{name}.yaml"))
        sources = config.data.source
        assert len(sources) == languages
        for source in sources:
            assert isinstance(source, CommonVoiceSource)
            assert (source.train_rows, source.dev_rows) == (rows, dev)
        student = config.student
        assert isinstance(student, Experts)
        assert student.languages == tuple(source.language for source in sources if isinstance(source, CommonVoiceSource))
        assert (student.gate_width, student.expert_dropout, student.noise, student.skip) == (64, 0.3, 5.0, 0.2)
        train = config.train
        assert (train.epochs, train.batch_size, train.lr, train.betas) == (10, 16, 1e-4, (0.9, 0.98))
        assert train.warmup_steps == pytest.approx(0.1 * 10 * rows * languages / 16, rel=1e-3)


def test_distil_large_v2_has_the_published_numbers() -> None:
    config = load_config(str(CONFIGS / "distil_large_v2.yaml"))
    assert isinstance(config.data.source[0], CommonVoiceSource)
    assert config.teacher is not None
    assert config.teacher.model == "openai/whisper-large-v2"
    assert config.student == LayerCopy(encoder_layers=None, decoder_layers=2, freeze_encoder=True)
    assert config.objective == KdRecipe(recipe="kd", lambda_ce=0.8, lambda_kl=1.0, temperature=2.0)
    train = config.train
    assert (train.steps, train.batch_size, train.warmup_steps, train.lr_schedule) == (80_000, 256, 500, "linear")
    assert (train.lr, train.weight_decay, train.betas, train.eps, train.clip_norm) == (1e-4, 0.0, (0.9, 0.999), 1e-8, 1.0)


def test_kotoba_style_has_the_published_numbers() -> None:
    config = load_config(str(CONFIGS / "kotoba_style.yaml"))
    (source,) = config.data.source
    assert isinstance(source, LabelsSource)
    assert (source.filter.max_wer, config.data.max_label_tokens, config.data.pack) == (0.1, 128, None)
    assert config.objective == KdRecipe(recipe="kd", lambda_ce=0.8, lambda_kl=1.0, temperature=2.0)
    train = config.train
    assert (train.epochs, train.batch_size, train.lr, train.lr_schedule, train.warmup_steps) == (8, 256, 1e-4, "constant", 500)


def test_distil_large_v3_5_has_the_published_numbers() -> None:
    config = load_config(str(CONFIGS / "distil_large_v3_5.yaml"))
    (source,) = config.data.source
    assert isinstance(source, LabelsSource)
    assert source.filter.max_wer == 0.1
    assert config.data.pack is not None
    assert config.data.pack.previous_text == 0.2
    assert [one.kind for one in config.method.inputs] == ["spec_augment"]
    assert (config.train.epochs, config.train.batch_size, config.train.lr_schedule) == (80, 4096, "linear")


def test_mlm_czech_has_the_published_numbers() -> None:
    config = load_mlm_config(str(CONFIGS / "mlm_czech.yaml"))
    (source,) = config.text.source
    assert isinstance(source, TextFilesSource)
    assert (config.text.max_bytes, config.text.words_per_segment, config.text.min_words) == (210_000_000, 15, 5)
    assert (config.text.max_characters, config.text.validation_share) == (512, 0.2)
    assert (config.mlm.width, config.mlm.layers, config.mlm.mask_token, config.mlm.mask_share) == (512, 6, "<|uz|>", None)
    train = config.train
    assert (train.epochs, train.batch_size, train.lr, train.lr_schedule, train.warmup_steps) == (30, 32, 1e-4, "constant", 0)
    assert (train.weight_decay, train.clip_norm) == (0.0, 0.0)


def test_whisper_tiny_czech_has_the_published_numbers() -> None:
    config = load_config(str(CONFIGS / "whisper_tiny_czech.yaml"))
    assert isinstance(config.objective, MlmKdRecipe)
    assert (config.objective.lambda_lm, config.objective.preset, config.objective.mlm_temperature) == (1e-3, "code", 1.0)
    assert Path(config.objective.mlm.model).name == "mlm_czech.yaml"
    assert config.student == Pretrained(model="openai/whisper-tiny", freeze_encoder=False)
    assert config.teacher is None
    train = config.train
    assert (train.epochs, train.batch_size, train.lr, train.lr_schedule, train.warmup_steps) == (14, 8, 1e-4, "linear", 11)
    assert (train.weight_decay, train.eps, train.clip_norm) == (0.01, 1e-8, 0.0)
