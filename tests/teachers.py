"""A run whose teacher is named by a raykd config, and what would be trained for it."""

from pathlib import Path

import pytest

from raykd.config import Config
from raykd.config.yaml_text import to_yaml
from raykd.teachers import ensure_teacher
from raykd.tracking.run_folder import RunFolder


class Trained(Exception):  # noqa: N818 (no error: it tells where a teacher would be trained)
    def __init__(self, output_dir: str, resume: bool) -> None:
        super().__init__(output_dir, resume)
        self.output_dir, self.resume = output_dir, resume


def student_of(folder: Path) -> Config:
    """A config whose teacher `master` is trained into `folder/cache`."""
    tree = {"data": {"source": "demo"}, "student": {"init": "scratch"}, "train": {"steps": 1}}
    (folder / "master.yaml").write_text(to_yaml({**tree, "name": "master", "objective": {"recipe": "ce"}}))
    tree |= {"data": {"source": "demo", "cache_dir": f"{folder}/cache"}, "teacher": {"model": f"{folder}/master.yaml"}}
    return Config.model_validate(tree)


def training(config: Config) -> Trained:
    """Where the teacher would be trained, and whether that would go on with an unfinished run."""

    def distil(teacher: Config, resume: bool) -> RunFolder:
        raise Trained(teacher.output_dir, resume)

    with pytest.raises(Trained) as raised:
        ensure_teacher(config, distil)
    return raised.value
