"""The config of a sweep: what is searched over one base config, how it is searched, and what is kept."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raykd.config.base import FolderName, Mark, Section, wrong
from raykd.config.compare import Changes

Range = tuple[float, float]
Whole = tuple[int, int]
FORMS = ("choice", "uniform", "loguniform", "int")
_IN_TRAINING = ("lr", "lr_schedule", "warmup_steps", "weight_decay", "betas", "eps", "clip_norm")
"""Keys of `train` that a checkpoint of other values goes on with."""


class Dimension(Section):
    """The values that a config key takes in a sweep: one of `choice`, `uniform`, `loguniform` and `int`."""

    choice: Annotated[tuple[Any, ...] | None, Field(min_length=1)] = None
    """These values: numbers, words, whole sections."""
    uniform: Range | None = None
    """Any number from the first to the second."""
    loguniform: Range | None = None
    """The same, every factor as likely as another of its size: for learning rates."""
    int: Whole | None = None
    """Any whole number from the first to the second, both included."""
    when: Changes = Field({})
    """Only in trials where these other keys have these values (of a list: one of them): `{objective.recipe: askd}`. Where it
    is not so, the key is left out."""

    @model_validator(mode="before")
    @classmethod
    def _list_is_choice(cls, value: Any) -> Any:
        """A list is short for `choice`."""
        return {"choice": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_form(self) -> "Dimension":
        given = [form for form in FORMS if getattr(self, form) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(FORMS)} (got {', '.join(given) or 'none'})")
        bounds = self.uniform or self.loguniform or self.int
        if bounds is not None and bounds[0] >= bounds[1]:
            raise wrong(f"the range is empty: {bounds[0]:g} is not less than {bounds[1]:g}", given[0])
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise wrong(f"must start above 0 (got {self.loguniform[0]:g})", "loguniform")
        for number, value in enumerate(self.choice or ()):
            if value in (self.choice or ())[:number]:
                raise wrong(f"{value!r} is listed twice", "choice")
        return self


class AshaConfig(Section):
    """Stopping trials early (ASHA, Li et al. 2020): at each rung the best share goes on, by WER on dev so far."""

    grace: float = Field(0.25, gt=0, lt=1)
    """Share of training before any trial is stopped; `train.eval_every` must give an evaluation by then."""
    reduction: float = Field(3.0, gt=1)
    """Of so many trials that reach a rung, one goes on; the next rung comes at so many times the training."""


class PbtConfig(Section):
    """Schedules found while training (population based training, Jaderberg et al. 2017): trials that do badly go on with the
    weights of one that does well, and with its values changed a little."""

    interval: float = Field(0.25, gt=0, lt=1)
    """Share of training between such exchanges."""
    quantile: float = Field(0.25, gt=0, le=0.5)
    """Share of the trials that count as doing badly, and as doing well."""
    resample: float = Field(0.25, ge=0, le=1)
    """Chance that a value is drawn anew instead of multiplied by 0.8 or 1.2 (of a choice: moved to a neighbour)."""


class SweepConfig(Section):
    """Many runs of one config with other values of some keys, and a report on which to take."""

    name: FolderName = "sweep"
    """Name of the sweep and of its folder."""
    output_dir: Annotated[str, Mark.PATH] = "runs"
    """Where its folder is made; the trials' run folders lie in it."""
    base: Changes | str
    """The config that all trials start from, as `python -m raykd.distill` takes it, or the file that holds it, beside this
    one."""
    fixed: Changes = Field({})
    """What is different from `base` in all trials: keys such as `train.steps` and their values."""
    search: dict[str, Dimension] = Field(min_length=1)
    """By config key, such as `train.lr` or `objective.lambda_lm`: the values that are tried."""
    sampler: Literal["random", "grid", "tpe", "pbt"] = "random"
    """grid: every combination of choices and whole numbers; tpe: Optuna's, which learns from the trials that have ended
    (`pip install 'raykd[sweep]'`); pbt: values drawn at random that change while training."""
    trials: int = Field(16, ge=1)
    """Points tried; a grid has as many as it has."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Each point is run with each seed: what differs between them is noise."""
    sampler_seed: int = Field(0, ge=0, lt=2**32)
    """Of what the sampler draws; the trials' own are `seeds`."""
    asha: AshaConfig | None = None
    """Stop trials early; None: each runs to its end."""
    pbt: PbtConfig = PbtConfig()
    """Of `sampler: pbt`."""
    at_once: int | None = Field(None, ge=1)
    """Trials side by side, each with an equal share of the cluster; more than there are GPUs share them. None: one a GPU, or a
    CPU where there is none, by `cluster.num_workers`. With `sampler: pbt` it is all of them, which learn from each other."""
    cache: Literal["topk", "encoder", "both"] = "topk"
    """What is kept of the teacher's answers before the first trial, where the config has `teacher: {kind: cached}`;
    see `python -m raykd.label --cache`."""
    keep: int = Field(3, ge=1)
    """Best points whose students and checkpoints are kept, of all seeds; of the others, what the report needs."""
    retries: int = Field(2, ge=0)
    """Times a trial is tried again whose process was killed."""
    register_as: str | None = None
    """Name of a registered model in MLflow that the best student becomes a version of."""

    @model_validator(mode="after")
    def _possible(self) -> "SweepConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise wrong(f"a seed is listed twice (got {list(self.seeds)})", "seeds")
        if self.sampler in {"tpe", "pbt"} and len(self.seeds) > 1:
            raise wrong(f"with `sampler: {self.sampler}` each point is run once; give one seed", "seeds")
        if self.sampler == "pbt":
            self._suits_pbt()
        for key, dimension in self.search.items():
            if self.sampler == "grid" and dimension.choice is None and dimension.int is None:
                raise wrong("a grid needs `choice` or `int`; give the values, or `sampler: random`", "search", key)
            self._is_free(key)
        return self

    def _suits_pbt(self) -> None:
        if self.asha is not None:
            raise wrong("trials of `sampler: pbt` run to their ends; leave it out", "asha")
        if self.trials < 2:
            raise wrong("pbt needs two trials or more that learn from each other", "trials")
        if self.at_once is not None and self.at_once < self.trials:
            raise wrong(
                f"trials of `sampler: pbt` learn from each other while they train, so all {self.trials} run at once; "
                "leave it out, or give fewer `trials`",
                "at_once",
            )
        for key, dimension in self.search.items():
            if dimension.when:
                raise wrong("with `sampler: pbt` every value is there in every trial; leave `when` out", "search", key)
            if not _changes_in_training(key, dimension):
                raise wrong(
                    "cannot change while training, as values of `sampler: pbt` do; take another sampler, or search numbers and "
                    f"schedules of `objective` and `data.spec_augment`, or of `train`: {', '.join(_IN_TRAINING)}",
                    "search",
                    key,
                )

    def _is_free(self, key: str) -> None:
        """A key that is searched must not be given a value as well."""
        if key in {"name", "output_dir", "seed"}:
            raise wrong("is set by the sweep" + ("; give `seeds`" if key == "seed" else ""), "search", key)
        given = {"fixed": self.fixed} | ({"base": self.base} if isinstance(self.base, dict) else {})
        for where, tree in given.items():
            if _is_set(tree, key):
                raise wrong(f"is searched, and has a fixed value in `{where}`; leave one of them out", "search", key)


def _changes_in_training(key: str, dimension: Dimension) -> bool:
    """Whether a trial can go on from another's checkpoint with another value: with the same models, data, length and parts."""
    section, _, name = key.partition(".")
    if section == "train":
        return name in _IN_TRAINING
    parts = [value for value in dimension.choice or () if isinstance(value, str | bool | list) or _is_part(value)]
    return key.startswith(("objective.", "data.spec_augment.")) and not key.endswith(".rank") and not parts


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and "start" not in value  # schedules have one


def _is_set(tree: Changes, key: str) -> bool:
    """Whether a tree gives the key, in sections or with dots."""
    for name, value in tree.items():
        if key == name or name.startswith(f"{key}."):
            return True
        if key.startswith(f"{name}.") and isinstance(value, dict) and _is_set(value, key[len(name) + 1 :]):
            return True
    return False
