"""The run folder `<output_dir>/<name>/`, local or on any pyarrow filesystem: what lies where in it, and which one to resume."""

import json
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from pyarrow import fs

from raykd import storage
from raykd.config import RunConfig, dump_yaml
from raykd.errors import UserError

REPLACED = "replaced_by"
"""File of a run with a successor (population based training), whose folder it names: it is not resumed, and not the run of its
name."""
_CLAIM = "claim"


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. It holds everything the report and a resume need."""

    path: str

    @classmethod
    def create(cls, config: RunConfig) -> "RunFolder":
        """A new folder with the resolved config in it: `<name>`, or the first free of `<name>-2`, `<name>-3`, ...

        Raises:
            UserError: output_dir cannot be written.
        """
        number = 1
        while True:
            path = storage.join(config.output_dir, config.name if number == 1 else f"{config.name}-{number}")
            try:
                if _make_new_dir(path):
                    run = cls(path)
                    run.write_text("config.yaml", dump_yaml(config))
                    storage.delete_file(run.at(_CLAIM))
                    return run
            except OSError as error:
                reason = error.strerror or str(error)
                raise UserError(
                    f"output_dir: {config.output_dir} cannot be written ({reason}); give a writable folder"
                ) from None
            number += 1

    @classmethod
    def given(cls, path: str) -> "RunFolder":
        """The run in a folder that the user named.

        Raises:
            UserError: there is none.
        """
        run = cls(path.rstrip("/"))
        if not run.has("config.yaml"):
            raise UserError(f"{path}: is no run folder (it has no config.yaml); give the folder that a run was written to")
        return run

    @classmethod
    def latest(cls, output_dir: str, name: str) -> "RunFolder":
        """The run to resume: the newest unfinished one of that name, else the newest.

        Raises:
            UserError: there is no run of that name.
        """
        run = cls.find(output_dir, name)
        if run is None:
            raise UserError(f"output_dir: {output_dir} has no run named {name} to resume; start it without --resume")
        return run

    @classmethod
    def find(cls, output_dir: str, name: str) -> "RunFolder | None":
        """As `latest`, or None. A folder without a config that can be read is no run: it was left before the run began.
        Nor is one that was replaced."""
        pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
        numbers = {}
        for folder in storage.list_dir(output_dir):
            if match := pattern.fullmatch(folder):
                run = cls(storage.join(output_dir, folder))
                if _configured_name(run) == name and not run.has(REPLACED):
                    numbers[run] = int(match[1] or 1)
        newest_first = sorted(numbers, key=lambda run: -numbers[run])
        return next((run for run in newest_first if not run.finished), newest_first[0] if newest_first else None)

    @property
    def name(self) -> str:
        """The folder's own name, which is the run's name in MLflow."""
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: the report is written last, from everything else."""
        return self.has("metrics.json") and self.has("report.html")

    @property
    def config_path(self) -> str:
        """The resolved config."""
        return self.at("config.yaml")

    @property
    def history_path(self) -> str:
        """Records of training, evaluations and events, one JSON object a line."""
        return self.at("history.jsonl")

    @property
    def metrics_path(self) -> str:
        """The numbers of the finished run."""
        return self.at("metrics.json")

    @property
    def report_path(self) -> str:
        """The report to look at."""
        return self.at("report.html")

    @property
    def student_dir(self) -> str:
        """The trained student, in Hugging Face format."""
        return self.at("student")

    @property
    def student_init_dir(self) -> str:
        """The student as it was before the first step."""
        return self.at("student_init")

    @property
    def student_pruned_dir(self) -> str:
        """The same with the tokens that it keeps, where its vocabulary is cut."""
        return self.at("student_pruned")

    @property
    def mlm_dir(self) -> str:
        """The trained masked language model."""
        return self.at("mlm")

    @property
    def mlm_init_dir(self) -> str:
        """The masked language model as it was before the first step."""
        return self.at("mlm_init")

    @property
    def checkpoints_dir(self) -> str:
        """Checkpoints of what trains."""
        return self.at("checkpoints")

    @property
    def rejects_path(self) -> str:
        """Rows of the sources that could not be used, with their reasons."""
        return self.at("rejects/rejects.parquet")

    def delete_weights(self) -> None:
        """Delete checkpoints and students: what is left is what a report needs."""
        for folder in (self.checkpoints_dir, self.student_dir, self.student_init_dir, self.student_pruned_dir):
            if storage.exists(folder):
                storage.delete_dir(folder)

    def evaluation_path(self, model: str, split: str) -> str:
        """Every scored utterance of `teacher` or `student` on a split."""
        return self.at(f"evaluation/{model}-{split}.parquet")

    def make_once(self, folder: str, make: Callable[[], None]) -> None:
        """Have a folder of the run filled, unless it was: half of it, as a kill leaves it, does not count."""
        whole = storage.join(folder, "complete")
        if not storage.exists(whole):
            make()
            storage.write_text(whole, "")

    def at(self, relative: str) -> str:
        """The path of a file or folder in the run folder."""
        return storage.join(self.path, relative)

    def has(self, relative: str) -> bool:
        """Whether that file or folder is there."""
        return storage.exists(self.at(relative))

    def read_text(self, relative: str) -> str:
        """The text of a file in the run folder."""
        return storage.read_bytes(self.at(relative)).decode("utf-8")

    def write_text(self, relative: str, text: str) -> None:
        """Write a file in the run folder, whole or not at all."""
        storage.write_text(self.at(relative), text)

    def read_json(self, relative: str) -> Any:
        """The content of a JSON file in the run folder; None when it is not there."""
        return json.loads(self.read_text(relative)) if self.has(relative) else None


def _configured_name(run: RunFolder) -> str | None:
    """The run's name in its config; None without a readable config."""
    if not run.has("config.yaml"):
        return None
    try:
        config = yaml.safe_load(run.read_text("config.yaml"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return config.get("name") if isinstance(config, dict) else None


def _make_new_dir(path: str) -> bool:
    """Create a folder; False when one with something in it is there already.

    A remote folder exists by what lies in it: `_CLAIM` until the run's config is there.
    """
    filesystem, inner = storage.filesystem_of(path)
    if not isinstance(filesystem, fs.LocalFileSystem):
        if filesystem.get_file_info(fs.FileSelector(inner, allow_not_found=True)):
            return False
        return storage.create_new(storage.join(path, _CLAIM), uuid.uuid4().bytes)
    os.makedirs(os.path.dirname(inner), exist_ok=True)
    try:
        os.mkdir(inner)
    except FileExistsError:
        return False
    return True
