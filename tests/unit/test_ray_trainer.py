"""What raykd leaves out of Ray Train is still called so there, and nothing else is left out."""

from typing import Any

from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from raykd.training.ray_trainer import _UNUSED, LeanTrainer


def callbacks(kind: type[TorchTrainer]) -> list[str]:
    trainer: Any = kind(lambda: None, scaling_config=ScalingConfig(num_workers=1))
    return [type(callback).__name__ for callback in trainer._create_default_callbacks()]


def test_two_callbacks_are_left_out() -> None:
    whole = callbacks(TorchTrainer)
    assert set(whole) >= _UNUSED, "Ray Train has renamed one"
    assert callbacks(LeanTrainer) == [name for name in whole if name not in _UNUSED]
