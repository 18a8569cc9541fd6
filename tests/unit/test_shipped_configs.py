"""Every config we ship loads, and says what its comments promise."""

from pathlib import Path

import pytest

from raykd.config import dump_yaml, load_config
from raykd.config.data import CommonVoiceSource
from raykd.config.objective import KdRecipe

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.y*ml")), ids=lambda path: path.name)
def test_it_loads_and_reads_back(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no config depends on the folder it is loaded from
    config = load_config(str(path))
    resolved = tmp_path / "config.yaml"
    resolved.write_text(dump_yaml(config))
    assert load_config(str(resolved)) == config


def test_every_config_has_its_own_name() -> None:
    names = [load_config(str(path)).name for path in CONFIGS.glob("*.y*ml")]
    assert len(set(names)) == len(names)


def test_distil_large_v2_has_the_published_numbers() -> None:
    config = load_config(str(CONFIGS / "distil_large_v2.yaml"))
    assert isinstance(config.data.source[0], CommonVoiceSource)
    assert config.teacher is not None
    assert config.teacher.model == "openai/whisper-large-v2"
    assert (config.student.encoder_layers, config.student.decoder_layers, config.student.freeze_encoder) == (None, 2, True)
    assert config.objective == KdRecipe(recipe="kd", lambda_ce=0.8, lambda_kl=1.0, temperature=2.0)
    train = config.train
    assert (train.steps, train.batch_size, train.warmup_steps, train.lr_schedule) == (80_000, 256, 500, "linear")
    assert (train.lr, train.weight_decay, train.betas, train.eps, train.clip_norm) == (1e-4, 0.0, (0.9, 0.999), 1e-8, 1.0)
