"""Some of the cases of `benchmarks/torture.py`: what is awkward is read as it was meant or refused, never something else."""

import random
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TORTURE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "torture.py"))
FAMILIES, RIGHT, REFUSED, verdict_of = (TORTURE[name] for name in ("FAMILIES", "RIGHT", "REFUSED", "verdict_of"))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_nothing_is_wrong_without_a_word(family: str) -> None:
    rng = random.Random(family)
    cases = [FAMILIES[family](rng) for _ in range(15 if family == "configs" else 60)]
    verdicts = [(name, verdict_of(look)) for name, look in cases]
    assert [one for one in verdicts if one[1] not in {RIGHT, REFUSED}] == []
    assert RIGHT in {verdict for _, verdict in verdicts}


def test_what_is_wrong_is_seen() -> None:
    assert verdict_of(lambda: "another sound") == "another sound"
    assert verdict_of(lambda: str(1 / 0)).startswith("traceback: ZeroDivisionError")
