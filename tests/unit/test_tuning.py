"""Sweeps without Ray: spaces and their mistakes, what mattered, the record, the table and the page."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune import Checkpoint
from rich.console import Console

from raykd import report, tune
from raykd.config.load import parse
from raykd.config.tune import SweepConfig
from raykd.config.yaml_text import to_yaml
from raykd.errors import UserError
from raykd.runs import changed_keys
from raykd.tracking.history import History, read_history
from raykd.tracking.plots import parallel_chart
from raykd.tracking.run_folder import RunFolder
from raykd.tuning.board import Board, trial_table
from raykd.tuning.entries import Entry, entries_of_runs, last_common_step, ranked
from raykd.tuning.importance import importances
from raykd.tuning.page import Findings, in_words, json_of, ranking, render
from raykd.tuning.record import Record, Trial
from raykd.tuning.space import Space
from raykd.tuning.sweep import Within
from raykd.tuning.trial import Folder, SweepJob, SweepTrial, _take_over
from raykd.tuning.watch import Watch
from tests.unit.example_run import example_config, make_run

BASE = {
    "data": {"source": {"kind": "demo", "languages": ["cs"], "hours": 0.1}},
    "teacher": {"model": "openai/whisper-tiny"},
    "objective": {"recipe": "kd"},
    "train": {"steps": 40, "eval_every": 10},
}


def sweep(**fields: Any) -> SweepConfig:
    base = {key: value for key, value in BASE.items() if key not in fields.get("search", {})}
    return parse(SweepConfig, {"base": base, **fields}, "s.yaml")


def space(search: Any, **fields: Any) -> Space:
    return Space(sweep(search=search, **fields), "s.yaml")


# ---------------------------------------------------------------------------------------------- spaces


def test_a_grid_has_every_combination_once_and_conditions_hold() -> None:
    made = space(
        {
            "objective": [{"recipe": "kd"}, {"recipe": "askd"}],
            "objective.beta": {"choice": [0.1, 0.9], "when": {"objective.recipe": "askd"}},
            "train.warmup_steps": {"int": [1, 3]},
        },
        sampler="grid",
    )
    points = [made.decoded(coded) for coded in made.points()]
    assert len(points) == 3 * (1 + 2)
    assert len({json.dumps(point) for point in points}) == len(points)
    for point in points:
        assert ("objective.beta" in point) == (point["objective"]["recipe"] == "askd")
        config = made.config(point, "one", 7)
        assert config.train.warmup_steps == point["train.warmup_steps"]
        assert config.objective.recipe == point["objective"]["recipe"]
        assert config.seed == 7
        if "objective.beta" in point:
            assert config.objective.beta == point["objective.beta"]  # type: ignore[attr-defined]


def test_points_at_random_are_spread_as_said_and_come_from_the_seed() -> None:
    search = {"train.lr": {"loguniform": [1e-5, 1e-1]}, "objective.temperature": {"uniform": [1.0, 3.0]}}
    made = space(search, trials=400)
    points = [made.decoded(coded) for coded in made.points()]
    rates = np.log10([point["train.lr"] for point in points])
    temperatures = np.asarray([point["objective.temperature"] for point in points])
    assert abs(rates.mean() + 3) < 0.2
    assert abs(temperatures.mean() - 2) < 0.1
    assert rates.min() >= -5
    assert rates.max() <= -1
    assert space(search, trials=400).points() == made.points()
    assert space(search, trials=400, sampler_seed=1).points() != made.points()


def test_a_small_space_is_not_tried_twice() -> None:
    assert len(space({"train.lr": [1e-3, 1e-4, 1e-5]}, trials=10).points()) == 3


def test_keys_wait_for_what_they_depend_on_in_whatever_order_they_are_written() -> None:
    made = space(
        {
            "objective.beta": {"uniform": [0, 1], "when": {"objective.recipe": "askd"}},
            "objective": [{"recipe": "kd"}, {"recipe": "askd"}],
        },
        trials=30,
    )
    assert {len(made.decoded(coded)) for coded in made.points()} == {1, 2}
    assert list(made.decoded({"objective": 1, "objective.beta": 0.5})) == ["objective.beta", "objective"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"search": {}}, "search: must be at least 1 long"),
        ({"search": {"train.lr": {"uniform": [2, 1]}}}, "search.train.lr.uniform: the range is empty: 2 is not less than 1"),
        ({"search": {"train.lr": {"int": [3, 3]}}}, "search.train.lr.int: the range is empty"),
        ({"search": {"train.lr": {"loguniform": [0, 1]}}}, "search.train.lr.loguniform: must start above 0"),
        ({"search": {"train.lr": {}}}, "search.train.lr: give exactly one of choice, uniform, loguniform, int (got none)"),
        ({"search": {"train.lr": {"uniform": [1, 2], "int": [1, 2]}}}, "got uniform, int"),
        ({"search": {"train.lr": []}}, "search.train.lr: must be at least 1 long"),
        ({"search": {"train.lr": [1, 1]}}, "search.train.lr.choice: 1 is listed twice"),
        ({"search": {"train.lr": {"unifrom": [1, 2]}}}, "search.train.lr.unifrom: unknown key"),
        ({"search": {"train.steps": [10, 20]}}, "search.train.steps: is searched, and has a fixed value in `base`"),
        ({"search": {"data.source.hours": [1, 2]}}, "search.data.source.hours: is searched, and has a fixed value in `base`"),
        ({"search": {"train.lr": [1, 2]}, "fixed": {"train.lr": 1}}, "has a fixed value in `fixed`"),
        ({"search": {"train.lr": [1, 2]}, "fixed": {"train": {"lr": 1}}}, "has a fixed value in `fixed`"),
        ({"search": {"seed": [1, 2]}}, "search.seed: is set by the sweep; give `seeds`"),
        ({"search": {"name": ["a", "b"]}}, "search.name: is set by the sweep"),
        ({"search": {"train.lr": {"uniform": [1, 2]}}, "sampler": "grid"}, "a grid needs `choice` or `int`"),
        ({"search": {"train.lr": [1, 2]}, "sampler": "tpe", "seeds": [0, 1]}, "seeds: with `sampler: tpe`"),
        ({"search": {"train.lr": [1, 2]}, "seeds": [1, 1]}, "seeds: a seed is listed twice"),
        ({"search": {"train.lr": [1, 2]}, "sampler": "pbt", "trials": 1}, "trials: pbt needs two trials"),
        ({"search": {"train.lr": [1, 2]}, "sampler": "pbt", "trials": 3, "at_once": 2}, "so all 3 run at once; leave it out"),
        ({"search": {"train.lr": [1, 2]}, "sampler": "pbt", "asha": {}}, "asha: trials of `sampler: pbt` run to their ends"),
        (
            {"search": {"train.batch_size": [8, 16]}, "sampler": "pbt"},
            "search.train.batch_size: cannot change while training, as values of `sampler: pbt` do; take another sampler, or",
        ),
        ({"search": {"student.decoder_layers": {"int": [1, 2]}}, "sampler": "pbt"}, "decoder_layers: cannot change while"),
        ({"search": {"data.dev_share": {"uniform": [0.1, 0.2]}}, "sampler": "pbt"}, "dev_share: cannot change while training"),
        ({"search": {"objective": [{"recipe": "kd"}, {"recipe": "ce"}]}, "sampler": "pbt"}, "search.objective: cannot change"),
        ({"search": {"objective.self_teacher": [{"kind": "ema"}]}, "sampler": "pbt"}, "self_teacher: cannot change while"),
        ({"search": {"objective.rank": {"int": [8, 32]}}, "sampler": "pbt"}, "search.objective.rank: cannot change"),
        ({"search": {"train.lr": [1, 2]}, "sampler": "bayes"}, "sampler: must be random, grid, tpe or pbt"),
        ({"search": {"train.lr": [1, 2]}, "asha": {"grace": 1.0}}, "asha.grace: must be less than 1"),
    ],
)
def test_a_wrong_sweep_is_refused_with_the_key(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        sweep(**fields)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"train.lrr": [1e-3]}, "s.yaml: with train.lrr: 0.001: train.lrr: unknown key; did you mean train.lr?"),
        ({"train.lr": {"uniform": [-1, 1]}}, "train.lr: must be greater than 0 (got -1"),
        ({"objective.temperature": [1.0, "warm"]}, "objective.temperature"),
        ({"train.warmup_steps": {"int": [0, 100]}}, "train.warmup_steps: must be at most steps, 40 (got 100)"),
        ({"train.epochs": [1, 2]}, "train: give exactly one of `epochs` and `steps`"),
        ({"objective.beta": {"uniform": [0, 1]}}, "objective.beta: unknown key"),
        (
            {"train.lr": {"choice": [1e-3], "when": {"objective.recipe": "askd"}}},
            'search.train.lr.when: never holds (objective.recipe: "askd"); search that key too, or leave this out',
        ),
        (
            {
                "train.lr": {"choice": [1e-3], "when": {"train.warmup_steps": 1}},
                "train.warmup_steps": {"choice": [1], "when": {"train.lr": 1e-3}},
            },
            "the conditions of train.lr and train.warmup_steps wait for each other",
        ),
        ({"objective.recipe.kd": [1]}, 'objective.recipe is "kd", not a section'),
        (
            {"teacher.kind": ["cached"], "objective.temperature": {"uniform": [1.0, 2.0]}},
            "and the cache at 1, 2; give `cache: encoder`, which serves any objective",
        ),
    ],
)
def test_a_wrong_space_is_refused_before_anything_starts(search: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        space(search, trials=3).check()
    assert told in str(caught.value)


def test_the_command_refuses_before_ray(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    tree = {"base": BASE, "search": {"train.lr": [1e-3, 1e-4]}, "output_dir": str(tmp_path / "runs")}

    def refused(told: str, *overrides: str, **fields: Any) -> None:
        path.write_text(to_yaml({**tree, **fields}))
        with pytest.raises(UserError) as caught:
            tune.main(["--config", str(path), *overrides])
        assert told in str(caught.value)

    refused("train.lrr: unknown key", search={"train.lrr": [1]})
    refused("has a fixed value in `fixed`", "fixed.train.lr=1")
    refused("has no sweep named sweep to resume", "--resume")
    refused(
        "asha.grace: trials are compared from step 4 on, but train.eval_every scores them first at step 10", asha={"grace": 0.1}
    )
    refused("cannot be read", base="nowhere.yaml")
    refused("s.yaml: data.language: `xx` is no language that Whisper knows", search={"data.language": ["xx"]})
    assert not (tmp_path / "runs" / "sweep").exists()


def test_values_that_are_changed_while_training_stay_within_their_ranges() -> None:
    made = sweep(search={"train.lr": {"loguniform": [1e-4, 1e-3]}, "train.warmup_steps": {"int": [2, 9]}}, sampler="pbt")
    within = Within(dict(made.search))
    schedules = {"objective.lambda_kl": [1.0, {"start": 1.0, "end": 0.2}], "data.spec_augment.time_masks": {"int": [0, 3]}}
    assert set(sweep(search=schedules, sampler="pbt").search) == set(schedules), "these may change too"
    cut = within({"seed": 3, "coded": {"train.lr": 1.2e-3, "train.warmup_steps": 1}})
    assert cut == {"seed": 3, "coded": {"train.lr": 1e-3, "train.warmup_steps": 2}}


# ---------------------------------------------------------------------------------------------- what mattered


def test_importance_is_the_share_of_the_variance_and_chance_is_told() -> None:
    rng = np.random.default_rng(0)
    drawn = [(float(10 ** rng.uniform(-5, -2)), str(rng.choice(["a", "b"])), float(rng.uniform())) for _ in range(60)]
    points = [{"lr": lr, "kind": kind, "noise": noise} for lr, kind, noise in drawn]
    rates = [0.1 * (math.log10(lr) + 3.5) ** 2 + 0.2 * (kind == "a") for lr, kind, _ in drawn]
    found = {one.key: one for one in importances(points, rates)}
    parabola = np.asarray([0.1 * (math.log10(lr) + 3.5) ** 2 for lr, _, _ in drawn])
    assert found["lr"].share == pytest.approx(np.corrcoef(parabola, rates)[0, 1] ** 2, abs=0.05)
    assert found["lr"].p < 0.01
    assert found["kind"].p < 0.01
    assert found["noise"].p > 0.05
    assert next(iter(found)) in {"lr", "kind"}
    assert importances([{"a": 1}, {"a": 1}], [0.1, 0.2]) == [], "one value tells nothing"


def entry(name: str, dev: list[float], state: str = "finished", seed: int = 0, reason: str = "", **point: Any) -> Entry:
    evaluations = [{"kind": "eval", "split": "dev", "step": 10 * (n + 1), "wer": wer} for n, wer in enumerate(dev)]
    train = [{"kind": "train", "step": 10 * len(dev), "steps": 40, "seconds": 1.0}] if dev else []
    return Entry(name, point, seed, state, reason, History(train, evaluations, []), None, 60.0, "")


def test_runs_that_differ_in_the_seed_alone_are_ranked_together_and_stopped_ones_last() -> None:
    entries = [
        entry("a", [0.5, 0.4], lr=1),
        entry("b", [0.5, 0.2], seed=1, lr=1),
        entry("c", [0.5, 0.35], lr=2),
        entry("d", [0.1], state="stopped", lr=3),
        entry("e", [], state="failed", reason="no memory", lr=4),
    ]
    groups = ranked(entries)
    assert [[one.name for one in group.entries] for group in groups] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert groups[0].dev == pytest.approx(0.3)
    assert groups[0].spread == pytest.approx(np.std([0.4, 0.2], ddof=1))
    assert last_common_step(entries) == 10
    findings = Findings.of("s", entries)
    assert findings.best is not None
    assert findings.best.name == "b"
    words = " ".join(in_words(findings))
    assert "Take b (lr 1): 30.00 % word error rate on dev, 14.14 points standard deviation over 2 seeds" in words
    assert "The next best is c (lr 2)" in words
    assert "1 of 5 trials were stopped early, which saved 30 % of the steps" in words
    table = ranking(findings)
    assert table.header[:4] == ("run", "lr", "seeds", "state")
    assert table.rows[0][:6] == ("b", "1", "2", "finished", "20", "30.00 ± 14.14")
    assert json.loads(json_of(findings))["best"] == "b"


def test_the_page_is_whole_with_nothing_and_escapes_what_comes_from_outside(tmp_path: Path) -> None:
    failed = [entry("x", [], state="failed", reason="<b>bad</b>", lr="<i>")]
    page = render(Findings.of("<s>", failed), "python -m raykd.tune")
    assert "No run has come to its end." in page
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "<b>bad" not in page
    assert "<i>" not in page
    assert render(Findings.of("s", []), "c").count("<section>") >= 2


def test_parallel_coordinates_have_an_axis_a_key_and_gaps() -> None:
    svg = parallel_chart("p", ["lr", "kind", "WER"], [[1e-4, "a", 5.0], [1e-2, None, 7.0], [1e-3, {"k": 1}, 6.0]], strong=1)
    assert svg.startswith("<svg")
    for text in ("lr", "kind", "0.0001", "0.01", "{&quot;k&quot;: 1}", ">5<", ">7<"):
        assert text in svg or text.replace("&quot;", '"') in svg, text


# ---------------------------------------------------------------------------------------------- record, table, report


def test_the_record_survives_and_what_ran_is_waiting(tmp_path: Path) -> None:
    folder = str(tmp_path / "sweep")
    record = Record(folder)
    for number, state in enumerate(("finished", "running", "failed")):
        trial = Trial(f"trial-{number:03d}", {"train.lr": 0.1}, 0, run=f"{folder}/runs/trial-{number:03d}")
        trial.begins()
        if state != "running":
            trial.ends(state, "why")  # type: ignore[arg-type]
        record.trials[trial.name] = trial
    record.write()
    again = Record.read(folder)
    assert [trial.state for trial in again.trials.values()] == ["finished", "waiting", "failed"]
    assert again.trials["trial-001"].began is None
    moved = tmp_path / "moved"
    (tmp_path / "sweep").rename(moved)
    assert Record.read(str(moved)).trials["trial-000"].run == f"{moved}/runs/trial-000"


def test_the_table_shows_those_that_run_first(tmp_path: Path) -> None:
    run = make_run(example_config(tmp_path))
    record = Record(str(tmp_path))
    record.trials["trial-000"] = Trial("trial-000", {"train.lr": 0.1}, 0, "finished", run=run.path)
    record.trials["trial-001"] = Trial("trial-001", {"train.lr": 0.2, "objective.beta": [1]}, 0, "running", run=run.path)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(trial_table(record, "trials"))
    text = console.export_text()
    assert text.index("trial-001") < text.index("trial-000")
    assert "beta" in text
    assert "objective.beta" not in text, "the last word tells it apart"
    times = iter([0.0, 40.0, 80.0, 120.0, 160.0])
    said = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    board = Board(5, said, clock=lambda: next(times))
    board.show(record)
    assert "1 running, 1 finished, 3 to come" in said.export_text()


def test_a_table_has_short_names_and_values(tmp_path: Path) -> None:
    run = make_run(example_config(tmp_path))
    record = Record(str(tmp_path))
    point = {"objective.decay": "exponential", "objective.alpha_end": 0.3, "objective.switch": 0.5625523267576156}
    point |= {"objective.beta.start": 0.0871292997015407, "train.beta.start": 2}
    record.trials["trial-000"] = Trial("trial-000", point, 0, "running", run=run.path)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(trial_table(record, "trials"))
    heading, _, row = console.export_text().strip().splitlines()[2:5]
    assert heading.split()[:6] == ["trial", "decay", "alpha_end", "switch", "objective.beta.start", "train.beta.start"]
    assert row.split()[:6] == ["trial-000", "exponential", "0.3", "0.5626", "0.08713", "2"]


@pytest.mark.slow
def test_any_runs_are_put_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for number in range(2):
        config = example_config(tmp_path / str(number))
        train = config.train.model_copy(update={"lr": 1e-4 * (number + 1)})
        run = make_run(config.model_copy(update={"train": train}))
        run.write_text("report.html", "")
        folders.append(run.path)
    entries = entries_of_runs(folders)
    assert [set(one.point) for one in entries] == [{"train.lr"}] * 2
    report.main([*folders, "--out", str(tmp_path / "page")])
    assert "Ranking" in capsys.readouterr().out
    assert (tmp_path / "page" / "report.html").read_text().count("<svg") >= 2
    assert json.loads((tmp_path / "page" / "results.json").read_text())["best"]
    report.main([folders[0], "--out", str(tmp_path / "one")])
    assert (tmp_path / "one" / "report.html").exists()
    with pytest.raises(UserError, match=r"is neither a run folder \(config\.yaml\) nor a sweep's"):
        report.main([str(tmp_path)])


def test_the_best_at_the_edge_of_what_was_tried_is_told() -> None:
    entries = [entry(f"t{number}", [0.1 * number], lr=10.0**-number, size=number % 2) for number in (1, 2, 3, 4)]
    words = " ".join(in_words(Findings.of("s", entries)))
    assert "Its lr is the highest that was tried: the best may lie beyond" in words
    assert "Its size" not in words, "two values have no edge"


def test_copies_that_another_trial_is_to_go_on_from_stay(tmp_path: Path) -> None:
    """Population based training: it may stand still until long after its donor was saved again (it then failed)."""

    def copy(trial: str, number: int) -> Any:
        folder = tmp_path / trial / f"checkpoint_{number:06d}"
        folder.mkdir(parents=True)
        return Checkpoint.from_directory(folder)

    first, second, other = copy("donor", 0), copy("donor", 1), copy("other", 0)
    (tmp_path / "donor" / "logs").mkdir()
    donor, waiting = SimpleNamespace(checkpoint=second), SimpleNamespace(checkpoint=first)
    third, watch = copy("donor", 2), Watch(str(tmp_path))
    watch.on_checkpoint(0, [donor, waiting], donor, third)
    assert [Path(one.path).exists() for one in (first, second, third, other)] == [True] * 4
    donor.checkpoint, waiting.checkpoint = third, other
    fourth = copy("donor", 3)
    watch.on_checkpoint(0, [donor, waiting], donor, fourth)
    assert [Path(one.path).exists() for one in (first, second, third, fourth, other)] == [False, False, True, True, True]
    assert (tmp_path / "donor" / "logs").exists()


def test_the_run_of_a_trial_that_went_on_from_another_is_the_newest(tmp_path: Path) -> None:
    """Also once that has come to its end, and the one before it never will (it was ranked by the old one)."""
    config = example_config(tmp_path / "runs", name="trial-001")
    before = RunFolder.create(config)
    before.write_text("student_init/config.json", "{}")
    given = tmp_path / "given"
    (given / "checkpoint").mkdir(parents=True)
    (given / "checkpoint" / "trainable.safetensors").write_bytes(b"weights")
    (given / "history.jsonl").write_text('{"kind": "train", "step": 1, "loss": 1.0}\n')
    (given / "donor.json").write_text('{"run": "trial-000", "step": 1}')
    _take_over(config, str(given))
    now = RunFolder.find(config.output_dir, config.name)
    assert now is not None
    assert now != before
    assert not before.has("student_init"), "the disk is bounded"
    assert [record["step"] for record in read_history(now.history_path).train] == [1]
    for name in ("metrics.json", "report.html"):
        now.write_text(name, "")
    assert RunFolder.find(config.output_dir, config.name) == now
    _take_over(config, str(given))
    assert RunFolder.find(config.output_dir, config.name) == now, "its process was lost and is here again"
    other = config.model_copy(update={"train": config.train.model_copy(update={"lr": 0.5})})
    _take_over(other, str(given))
    third = RunFolder.find(config.output_dir, config.name)
    assert third not in {before, now}, "the same training once more, with other values (it was told that train.lr differs)"
    assert third is not None
    assert changed_keys(other, third) == []


def test_a_trial_that_is_ended_takes_its_copies_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What population based training hands on: the folder it was given, the one it shared, and one that nobody has read."""
    monkeypatch.chdir(tmp_path)
    ended = SweepTrial.__new__(SweepTrial)
    nothing: Any = None
    ended.setup({}, SweepJob(nothing, "", str(tmp_path), 1.0, None))
    given = tmp_path / "given"
    given.mkdir()
    (given / "donor.json").write_text("{}")
    ended.load_checkpoint(str(given))
    unread = Folder()
    ended._shared = Folder()
    ended._reports.put(({}, unread))
    ended._reports.put(({}, None))
    assert ended._donor is not None
    made = [Path(one.name) for one in (ended._donor, ended._shared, unread)]
    assert all(folder.exists() for folder in made)
    ended.cleanup()
    assert not any(folder.exists() for folder in made)
    assert given.exists()
