"""The space of a sweep: the points that are tried, and the config of each.

A point is a mapping from config keys to values. Samplers see it coded: of a choice, the number of the value in its list,
because the values may be whole sections.
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from raykd import storage
from raykd.config import Config
from raykd.config.compare import merged
from raykd.config.load import config_from, read_yaml, set_key
from raykd.config.mistakes import got
from raykd.config.tune import Dimension, SweepConfig
from raykd.errors import UserError
from raykd.parts.targets.cached import CachedTarget, unanswerable, unkept

Coded = dict[str, Any]
Point = dict[str, Any]
_DRAWS = 200
"""Draws in search of a new point, or of one that a condition holds for, before it is given up."""
_TRIED = 4
"""Points that each extreme value is checked in."""


class Space:
    """What a sweep searches, over the config that all its trials start from."""

    def __init__(self, sweep: SweepConfig, path: str) -> None:
        """`path`: of the sweep's file.

        Raises:
            UserError: the base config cannot be read, or conditions go round in a circle.
        """
        self.sweep, self.path = sweep, path
        base = sweep.base
        self.origin = path
        if isinstance(base, str):
            beside = os.path.join(os.path.dirname(path), base)
            self.origin = beside if os.path.isfile(beside) else base
            base = read_yaml(self.origin)
        self._base = merged(base, sweep.fixed)
        self._order = _in_order(sweep.search, path)

    # ------------------------------------------------------------------------------------------ configs

    def config(self, point: Point, name: str, seed: int) -> Config:
        """Of a trial.

        Raises:
            UserError: the values do not make a config.
        """
        tree = {**self._tree(point), "name": name, "output_dir": self.runs_folder, "seed": seed}
        try:
            return config_from(Config, tree, self.origin)
        except UserError as error:
            told = ", ".join(f"{key}: {got(value)}" for key, value in point.items())
            lines = [f"{self.path}: with {told}: {line.removeprefix(f'{self.origin}: ')}" for line in str(error).splitlines()]
            raise UserError("\n".join(lines)) from None

    @property
    def runs_folder(self) -> str:
        """Where the run folders of the trials lie."""
        return storage.join(self.sweep.output_dir, self.sweep.name, "runs")

    def _tree(self, point: Point) -> dict[str, Any]:
        tree = dict(self._base)
        for key in self._order:
            if key in point:
                set_key(tree, key, point[key], f"{self.path}: search.{key}")
        return tree

    # ------------------------------------------------------------------------------------------ points

    def decoded(self, coded: Coded) -> Point:
        """The values behind the numbers, in the order of the config."""
        search = self.sweep.search
        return {key: _decoded(search[key], coded[key]) for key in search if key in coded}

    def points(self) -> list[Coded]:
        """All that a sampler which does not learn tries."""
        if self.sweep.sampler == "grid":
            return list(self._grid())
        rng = np.random.default_rng(self.sweep.sampler_seed)
        found: list[Coded] = []
        for _ in range(self.sweep.trials * _DRAWS):
            coded = self.drawn(rng)
            if coded not in found:
                found.append(coded)
            if len(found) == self.sweep.trials:
                break
        return found

    def drawn(self, rng: np.random.Generator, given: Coded | None = None) -> Coded:
        """A point at random, around what is given."""
        return self._walked(lambda key, dimension: (given or {}).get(key, _drawn(dimension, rng)))

    def suggested(self, trial: Any) -> None:
        """Ask an Optuna trial for a point, value after value."""

        def suggest(key: str, dimension: Dimension) -> Any:
            name = f"coded/{key}"
            if dimension.choice is not None:
                return trial.suggest_categorical(name, list(range(len(dimension.choice))))
            if dimension.int is not None:
                return trial.suggest_int(name, *dimension.int)
            low, high = dimension.uniform or dimension.loguniform or (0, 0)
            return trial.suggest_float(name, low, high, log=dimension.loguniform is not None)

        self._walked(suggest)

    def _walked(self, value_of: Any) -> Coded:
        """A point whose values are asked for one after the other, without those whose conditions do not hold."""
        tree, coded = dict(self._base), {}
        for key in self._order:
            dimension = self.sweep.search[key]
            if _holds(dimension.when, tree):
                coded[key] = value_of(key, dimension)
                set_key(tree, key, _decoded(dimension, coded[key]), f"{self.path}: search.{key}")
        return coded

    def _grid(self) -> Iterator[Coded]:
        values = {key: _all_values(self.sweep.search[key]) for key in self._order}
        seen: list[Coded] = []
        for combination in itertools.product(*values.values()):
            chosen = dict(zip(values, combination, strict=True))
            coded = self._walked(lambda key, _, chosen=chosen: chosen[key])
            if coded not in seen:  # combinations that differ in nothing that counts
                seen.append(coded)
                yield coded

    def check(self) -> list[Config]:
        """Every value that can be listed, the ends of every range, and all points that are known, as configs.

        Raises:
            UserError: a key that is unknown, a value that is impossible, alone or beside others, or a condition that never
                holds, or an objective that the teacher's kept answers would not serve.
        """
        rng = np.random.default_rng(self.sweep.sampler_seed)
        tried = [coded for key in self._order for coded in self._around(key, rng)]
        if self.sweep.sampler in {"grid", "random"}:
            tried += self.points()
        unique = [coded for number, coded in enumerate(tried) if coded not in tried[:number]]
        configs = [self.config(self.decoded(coded), "trial", self.sweep.seeds[0]) for coded in unique]
        for config in configs:
            self._require_answers(config)
        return configs

    def _require_answers(self, config: Config) -> None:
        """What the sweep keeps of the teacher's answers must serve every trial: it is found out hours later otherwise."""
        if not isinstance(config.teacher, CachedTarget) or config.teacher.path is not None:
            return
        if wrong := list(unanswerable(config.method)):
            raise UserError(f"{self.path}: teacher: {wrong[0]}; give the teacher without `kind: cached`")
        temperatures = config.cache.temperatures
        if self.sweep.cache != "encoder" and (wrong := list(unkept(config.method, temperatures))):
            raise UserError(
                f"{self.path}: cache: {wrong[0]}; give `cache: encoder`, which serves any objective, or all temperatures as "
                "cache.temperatures of the base config"
            )

    def _around(self, key: str, rng: np.random.Generator) -> Iterator[Coded]:
        """Points with each listed or extreme value of a key."""
        for value in _extremes(self.sweep.search[key]):
            draws = (self.drawn(rng, {key: value}) for _ in range(_DRAWS))
            found = list(itertools.islice((coded for coded in draws if key in coded), _TRIED))
            if not found:
                when = ", ".join(f"{name}: {got(wanted)}" for name, wanted in self.sweep.search[key].when.items())
                raise UserError(f"{self.path}: search.{key}.when: never holds ({when}); search that key too, or leave this out")
            yield from found


def _in_order(search: Mapping[str, Dimension], path: str) -> list[str]:
    """Keys after those that they lie in and those that their conditions ask for.

    Raises:
        UserError: there is no such order.
    """

    def before(key: str) -> set[str]:
        asked = set(search[key].when)
        return {
            other
            for other in search
            if other != key and (_within(key, other) or any(_within(one, other) or _within(other, one) for one in asked))
        }

    waiting, order = {key: before(key) for key in search}, []
    while waiting:
        ready = next((key for key in waiting if not waiting[key] & set(waiting)), None)
        if ready is None:
            raise UserError(f"{path}: search: the conditions of {' and '.join(waiting)} wait for each other; leave one out")
        order.append(ready)
        del waiting[ready]
    return order


def _within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")


def _holds(when: Mapping[str, Any], tree: Mapping[str, Any]) -> bool:
    return all(_value_at(tree, key) in (wanted if isinstance(wanted, list) else [wanted]) for key, wanted in when.items())


def _value_at(tree: Any, key: str) -> Any:
    for step in key.split("."):
        tree = tree.get(step) if isinstance(tree, Mapping) else None
    return tree


def _decoded(dimension: Dimension, value: Any) -> Any:
    return dimension.choice[value] if dimension.choice is not None else value


def _drawn(dimension: Dimension, rng: np.random.Generator) -> Any:
    if dimension.choice is not None:
        return int(rng.integers(len(dimension.choice)))
    if dimension.int is not None:
        return int(rng.integers(dimension.int[0], dimension.int[1] + 1))
    if dimension.loguniform is not None:
        low, high = np.log(dimension.loguniform)
        return short(float(np.exp(rng.uniform(low, high))))
    assert dimension.uniform is not None
    return short(float(rng.uniform(*dimension.uniform)))


def short(value: float) -> float:
    """Of a number, four figures: no more can be told apart, and people read them."""
    return value if isinstance(value, int) else float(f"{value:.4g}")


def _all_values(dimension: Dimension) -> list[Any]:
    if dimension.choice is not None:
        return list(range(len(dimension.choice)))
    assert dimension.int is not None
    return list(range(dimension.int[0], dimension.int[1] + 1))


def _extremes(dimension: Dimension) -> list[Any]:
    """Of a range its ends, and a number between them: some things are possible at whole numbers alone."""
    if dimension.choice is not None:
        return list(range(len(dimension.choice)))
    if dimension.int is not None:
        return list(dimension.int)
    bounds = dimension.uniform or dimension.loguniform
    assert bounds is not None
    return [*bounds, short(sum(bounds) / 2)]
