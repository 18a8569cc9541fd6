"""The config of a comparison: methods, settings and seeds over one base config, and what all are scored on."""

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from raykd.config.base import FolderName, Mark, Section, wrong
from raykd.config.data import DataConfig

REPLACED = frozenset({"teacher", "student", "objective", "inputs", "source"})
"""Sections that a method or setting gives as a whole: keys of two parts do not mix. All others are merged key by key."""
Changes = dict[str, Any]
"""Sections of a config, or keys such as `train.lr`, and their values."""


class Test(Section):
    """Speech to be scored on."""

    data: DataConfig
    """Where it is; `cache_dir` is that of the runs."""
    split: str = "test"
    """Its split; a source that has no splits (with `dev_share: 0`) is taken whole."""


class CompareConfig(Section):
    """A table of methods × settings, each trained with every seed and scored on the same speech."""

    name: FolderName = "comparison"
    """Name of the comparison and of its folder."""
    output_dir: Annotated[str, Mark.PATH] = "runs"
    """Where its folder is made; the runs lie in it. A comparison that is there goes on, with what is finished kept."""
    base: Changes | str
    """The config that all runs start from, as `python -m raykd.distill` takes it, or the file that holds it, beside this
    one."""
    methods: dict[str, Changes] = Field(min_length=1)
    """By the name in the table: what is different from `base`. Sections are merged with its own, but for `teacher`, `student`,
    `objective`, `inputs` and `data.source`, which replace them. `{model: FOLDER}` is no run but a model as it is, such as the
    one that all students are made from."""
    settings: dict[str, Changes] = Field({})
    """By name: what is different in all methods, such as the amount of training data; each method is run in each."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Each method is run with each."""
    tests: dict[str, Test] = Field({})
    """By name: speech that every student is scored on. Empty: the `data.test_splits` of the runs, which must then be the same
    in all of them."""
    against: str | None = None
    """The method whose difference to each other is tested; None: the first one that is trained."""
    timed: bool = True
    """Measure each method's speed in turns with the first of `methods` that is a model as it is."""
    resamples: int = Field(2000, ge=100)
    """Of the paired bootstrap over utterances (Bisani and Ney 2004)."""

    @model_validator(mode="after")
    def _names_are_known(self) -> "CompareConfig":
        if self.against is not None and self.against not in self.methods:
            raise wrong(f"no method has this name (got {self.against!r}; there are {', '.join(self.methods)})", "against")
        if len(set(self.seeds)) < len(self.seeds):
            raise wrong(f"a seed is listed twice (got {list(self.seeds)})", "seeds")
        names: dict[str, str] = {}
        for kind, these in (("methods", self.methods), ("settings", self.settings)):
            for name in these:
                if not slug(name):
                    raise wrong("a name needs a letter or digit", kind, name)
                clash = names.setdefault(f"{kind} {slug(name)}", name)
                if clash != name:
                    raise wrong(f"is the same folder as {clash!r}; give it another name", kind, name)
        for name, changes in self.methods.items():
            if "model" in changes and len(changes) > 1:
                raise wrong("`model` stands alone: a model as it is has no other settings", "methods", name)
        for where, these in (("methods", self.methods), ("settings", self.settings)):
            for name, changes in these.items():
                for key in ("name", "output_dir", "seed"):
                    if key in changes:
                        raise wrong("is set by the comparison; leave it out", where, name, key)
        return self


def slug(name: str) -> str:
    """A name as part of a folder's."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")


def merged(base: Changes, changes: Changes) -> Changes:
    """The base with a method's or setting's changes."""
    made = dict(base)
    for key, value in changes.items():
        first, dot, rest = key.partition(".")
        if dot:
            section = made.get(first)
            made[first] = merged(section if isinstance(section, dict) else {}, {rest: value})
        elif isinstance(value, dict) and isinstance(made.get(key), dict) and key not in REPLACED:
            made[key] = merged(made[key], value)
        else:
            made[key] = value
    return made
