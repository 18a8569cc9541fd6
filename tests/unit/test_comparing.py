"""Comparisons: merged configs and their mistakes, rates and spreads, the bootstrap, tables and the page."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raykd.comparing.outcome import Job, Outcome
from raykd.comparing.page import in_words, json_of, metric_values, render
from raykd.comparing.runs import jobs_of
from raykd.comparing.scores import KINDS, Scored, Spread, difference, starred, told
from raykd.comparing.tables import Results, all_tables, as_markdown, rate_table
from raykd.config import Config
from raykd.config.compare import CompareConfig, merged, slug
from raykd.config.load import parse
from raykd.errors import UserError

BASE: dict[str, Any] = {"data": {"source": "demo"}, "train": {"steps": 1, "lr": 1e-3}, "student": {"init": "scratch"}}
METHODS: dict[str, Any] = {"ce": {"objective": "ce"}, "smooth": {"objective": {"recipe": "ce", "label_smoothing": 0.1}}}


def compare(**fields: Any) -> CompareConfig:
    return parse(CompareConfig, {"base": BASE, "methods": METHODS, **fields}, "c.yaml")


def test_sections_are_merged_and_parts_replaced() -> None:
    base = {
        "train": {"steps": 5, "lr": 1},
        "student": {"init": "scratch", "window": "clip"},
        "data": {"source": {"kind": "demo"}},
    }
    made = merged(
        base, {"train": {"lr": 2}, "student": {"decoder_layers": 2}, "data.source": {"kind": "manifest", "path": "p"}}
    )
    assert made == {
        "train": {"steps": 5, "lr": 2},
        "student": {"decoder_layers": 2},
        "data": {"source": {"kind": "manifest", "path": "p"}},
    }
    assert base["train"] == {"steps": 5, "lr": 1}, "the base stays as it was"
    assert merged(base, {"train.lr": 3})["train"] == {"steps": 5, "lr": 3}


def test_every_method_in_every_setting_with_every_seed() -> None:
    jobs = jobs_of(compare(seeds=[3, 4], settings={"short": {"train.steps": 2}, "long": {"train.steps": 9}}), "c.yaml")
    assert [(job.method, job.setting, job.seed) for job in jobs] == [
        (method, setting, seed) for seed in (3, 4) for setting in ("short", "long") for method in ("ce", "smooth")
    ]
    assert jobs[0].config.name == "ce-short-seed3"
    assert [job.config.train.steps for job in jobs[:4]] == [2, 2, 9, 9]
    assert {job.config.train.lr for job in jobs} == {1e-3}
    assert jobs[0].config.output_dir.endswith("comparison/runs")


def test_a_model_as_it_is_has_no_seeds(tiny_whisper_dir: Path) -> None:
    methods = {"zero-shot": {"model": str(tiny_whisper_dir)}, **METHODS}
    jobs = jobs_of(compare(methods=methods, seeds=[0, 1, 2]), "c.yaml")
    assert [job.seed for job in jobs if job.model] == [None]
    assert len(jobs) == 1 + 3 * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"against": "kd"}, r"c\.yaml: against: no method has this name \(got 'kd'; there are ce, smooth\)"),
        ({"seeds": [1, 1]}, r"seeds: a seed is listed twice"),
        ({"methods": {"a b": {}, "a-b": {}}}, r"methods\.a-b: is the same folder as 'a b'"),
        ({"methods": {"?": {}}}, r"methods\.\?: a name needs a letter or digit"),
        ({"methods": {"ce": {"seed": 3}}}, r"methods\.ce\.seed: is set by the comparison"),
        ({"methods": {"ce": {"model": "a/b", "train.lr": 1}}}, r"methods\.ce: `model` stands alone"),
        ({"methods": {}}, r"methods: "),
    ],
)
def test_mistakes_name_their_key(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(**fields)


def test_the_base_may_be_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("data: {source: demo}\ntrain: {steps: 7}\nstudent: {init: scratch}\nname: whatever\n")
    jobs = jobs_of(compare(base="base.yaml"), str(tmp_path / "c.yaml"))
    assert [job.config.train.steps for job in jobs] == [7, 7]
    assert jobs[0].config.name == "ce-seed0"


def test_a_methods_mistake_names_the_method() -> None:
    wrong = compare(methods={"ce": {"train.lrr": 1}}, settings={"short": {}})
    with pytest.raises(UserError, match=r"c\.yaml: ce, short: train\.lrr: unknown key; did you mean train\.lr"):
        jobs_of(wrong, "c.yaml")


def scored(errors: list[int], words: list[int] | None = None, languages: str = "cs") -> Scored:
    count = len(errors)
    codes = tuple(languages.split() * count)[:count]
    ids = tuple(f"{number:03d}" for number in range(count))
    return Scored(ids, codes, np.array(words or [10] * count), np.array(errors), dict.fromkeys(KINDS, sum(errors)), {})


def test_rates_are_over_words_and_the_mean_over_languages() -> None:
    one = scored([1, 4, 1, 0], [10, 5, 10, 5], "cs hu")
    assert one.rate() == 6 / 30
    assert (one.rate("cs"), one.rate("hu")) == (2 / 20, 4 / 10)
    assert one.mean_rate() == pytest.approx(0.25)
    assert told(Spread((0.1, 0.2))) == "15.00 ± 7.07"
    assert told(Spread((0.1234,))) == "12.34"


def test_the_bootstrap_finds_what_is_there_and_nothing_else() -> None:
    """Against the same by hand, utterance by utterance."""
    rng = np.random.default_rng(0)
    words = rng.integers(3, 12, 200).tolist()
    worse = rng.integers(0, 4, 200)
    better = np.maximum(0, worse - rng.integers(0, 2, 200))
    found = difference([scored(better.tolist(), words)], [scored(worse.tolist(), words)], 2000)
    assert found.value == pytest.approx((better.sum() - worse.sum()) / sum(words))
    assert found.low < found.value < found.high < 0
    assert starred(found.p) == "**"
    draws = np.random.default_rng(1).integers(0, 200, (2000, 200))
    by_hand = [(better[row] - worse[row]).sum() / np.array(words)[row].sum() for row in draws]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(by_hand, (0.025, 0.975))), abs=2e-3)
    shuffled = rng.permutation(worse)
    nothing = difference([scored(shuffled.tolist())], [scored(worse.tolist())], 1000)
    assert nothing.value == pytest.approx(0)
    assert nothing.p > 0.5
    assert starred(nothing.p) == ""


def test_seeds_are_averaged_before_utterances_are_drawn() -> None:
    first, second = scored([0, 2, 4]), scored([2, 2, 0])
    both = difference([first, second], [scored([1, 2, 2])], 500)
    assert (both.value, both.low, both.high) == (0, 0, 0)
    assert both.p == 1


def test_other_utterances_do_not_compare() -> None:
    with pytest.raises(ValueError, match="not the same utterances"):
        difference([scored([1, 2])], [scored([1, 2, 3])], 100)
    with pytest.raises(ValueError, match="not the same utterances"):
        difference([scored([1, 2], [10, 11])], [scored([1, 2], [10, 10])], 100)


def outcome(method: str, seed: int, errors: list[int], setting: str = "", **use: float) -> Outcome:
    config = Config.model_validate({**BASE, "objective": "ce"})
    one = scored(errors, languages="cs hu")
    shares = {"cs": {f"expert_use_{stack}": share for stack, share in use.items()}} if use else {}
    result = replace(one, expert_use=shares)
    facts = {"trained": 1e6, "stored": 2e6, "active": 1.5e6, "train_s": 60.0 + seed, "speedup": None, "memory_gb": 1.5}
    return Outcome(Job(method, setting, seed, config), {"test": result}, facts, f"runs/{method}-{seed}")


def results(**more: Any) -> Results:
    outcomes = [
        *(outcome("ce", seed, [4, 5, 3, 4 + seed]) for seed in (0, 1)),
        *(outcome("experts", seed, [1, 0, 1, seed], encoder=0.25, decoder=0.5) for seed in (0, 1)),
    ]
    return Results.of(outcomes, more.get("against"), 500)


def test_tables_say_rates_spreads_and_differences() -> None:
    table = rate_table(results(), "test")
    assert table.header == ("method", "cs", "hu", "mean", "difference from ce")
    ce, experts = table.rows
    assert ce == ("ce", "35.00 ± 0.00", "47.50 ± 3.54", "41.25 ± 1.77", "")
    assert experts[:4] == ("experts", "10.00 ± 0.00", "2.50 ± 3.54", "6.25 ± 1.77")
    assert experts[4].startswith("-35.00 [")
    assert experts[4].endswith("**")
    titles = [one.title for one in all_tables(results())]
    assert titles == [
        "Word error rate on test, in percent",
        "Errors by kind on test",
        "What it costs",
        "Tokens and layers that go through experts on test, in percent",
    ]
    kinds, costs, use = all_tables(results())[1:]
    assert kinds.rows[0] == ("ce", "40", *["16.5 ± 0.71"] * 4)
    assert costs.rows[0] == ("ce", "1 M", "2 M", "1.5 M", "1:00", "-", "1.50", "-")
    assert use.rows == (("experts", "cs", "25.00 ± 0.00", "50.00 ± 0.00"),)
    assert "| ce | 35.00 ± 0.00 |" in as_markdown(table)


def test_the_page_and_the_numbers() -> None:
    made = results()
    assert in_words(made) == [
        "On test, experts has the lowest word error rate, 6.25 %: -35.00 points from ce over all words, more than other "
        "utterances explain."
    ]
    page = render("x<y", made, "python -m raykd.compare --config c.yaml", "seeds: [0]")
    assert "x&lt;y" in page
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http://www.w3.org", "").split("<body>")[1], "it needs no network"
    assert metric_values(made)["wer/test/experts/mean"] == pytest.approx(0.0625)
    numbers = json_of(made)
    assert numbers["methods"][1]["wer"]["test"]["hu"] == pytest.approx([0.0, 0.05])
    assert numbers["methods"][1]["expert_use"]["test"][0] == {"cs": {"expert_use_encoder": 0.25, "expert_use_decoder": 0.5}}


def test_the_best_of_the_mean_may_be_worse_over_all_words() -> None:
    """Nearly all the words are in cs."""
    config = Config.model_validate({**BASE, "objective": "ce"})
    rates = {"ce": scored([10, 5], [100, 10], "cs hu"), "smooth": scored([15, 4], [100, 10], "cs hu")}
    outcomes = [Outcome(Job(method, "", 0, config), {"test": one}, {}, method) for method, one in rates.items()]
    (told_of,) = in_words(Results.of(outcomes, None, 200))
    assert "smooth has the lowest word error rate, 27.50 %: +3.64 points from ce over all words" in told_of


def test_a_method_that_came_to_no_end_is_told() -> None:
    made = Results.of([outcome("ce", 0, [1, 1])], None, 200, [("smooth-seed0", "the loss became NaN")])
    assert "smooth-seed0 came to no end: the loss became NaN" in render("x", made, "", "")
    assert in_words(made) == []


def test_names_of_folders() -> None:
    assert slug("zero-shot, large") == "zero-shot-large"
    assert slug("0.12 h") == "0.12-h"
