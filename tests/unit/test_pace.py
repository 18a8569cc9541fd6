"""What a step's time goes into: parts that add up, the share of the floor, time that was waited for data."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raykd.forecast import parts_table
from raykd.parts import timing
from raykd.parts.timing import part
from raykd.training import pace as pace_module
from raykd.training.pace import Pace, product_rate

CPU = torch.device("cpu")


def batches(count: int, rows: int = 4) -> list[Any]:
    return [SimpleNamespace(micro=[SimpleNamespace(ids=list(range(rows)))]) for _ in range(count)]


def test_parts_have_their_own_time_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0, 1, 3, 6, 10, 15, 21, 28])  # began; student; encoder; its end; student's end; backward; its end; the end
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(now)))
    with timing.timing(CPU) as timer:
        with part("student"), part("encoder"):
            pass
        with part("backward"):
            pass
    assert dict(timer.seconds) == {"other": 1 + 5 + 7, "student": 2 + 4, "encoder": 3, "backward": 6}


def test_nothing_is_timed_outside() -> None:
    with part("student"):
        pass
    with timing.timing(CPU) as timer:
        pass
    with part("student"):
        pass
    assert set(timer.seconds) == {"other"}


def test_products_of_the_first_step_are_counted_with_their_backward_pass() -> None:
    pace = Pace(CPU, torch.float32, "utterances")
    weight = torch.randn(30, 20, requires_grad=True)

    def step(_: Any) -> dict[str, Any]:
        (torch.randn(40, 30) @ weight).sum().backward()
        return {"utterances": 4, "tokens": 12}

    source = batches(3)
    for batch in pace.batches(source):
        record = pace.counted(step, batch)
        found = pace.of_step(record, batch)
    assert pace._flops_per_row == 2 * (2 * 40 * 30 * 20) / 4, "the product and its weight's gradient"
    assert pace._rate > 0
    assert found["floor_share"] == pytest.approx(2 * 2 * 40 * 30 * 20 / pace._rate / found["seconds"])
    assert found["tokens_per_s"] == pytest.approx(3 * found["utterances_per_s"])
    assert found["memory_gb"] > 0.05


def test_waiting_for_data_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pace_module.time, "monotonic", lambda: now[0])
    pace = Pace(CPU, torch.float32, "utterances")

    def source() -> Any:
        for batch in batches(2):
            now[0] += 3.0
            yield batch

    def step(_: Any) -> dict[str, Any]:
        now[0] += 1.0
        return {"utterances": 4, "tokens": 8}

    for batch in pace.batches(source()):
        found = pace.of_step(pace.counted(step, batch), batch)
        assert (found["data_wait"], found["seconds"], found["tokens_per_s"]) == (0.75, 4.0, 2.0)


def test_attention_is_counted() -> None:
    pace = Pace(CPU, torch.float32, "utterances")
    q = torch.randn(1, 2, 8, 4, requires_grad=True)

    def step(_: Any) -> dict[str, Any]:
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
        return {"utterances": 4, "tokens": 8}

    pace.counted(step, batches(1)[0])
    forward = 2 * (2 * 2 * 8 * 8 * 4)
    assert pace._flops_per_row == (forward + 2.5 * forward) / 4, "the backward pass computes the scores again"


def test_what_is_compiled_is_so_after_the_step_that_is_counted() -> None:
    """Dynamo never compiles a function that it first met under a dispatch mode, and says nothing."""

    @torch.compile(backend="eager")
    def product(a: torch.Tensor) -> torch.Tensor:
        return a @ a

    def step(_: Any) -> dict[str, Any]:
        product(torch.ones(8, 8))
        return {}

    pace, graphs = Pace(CPU, torch.float32, "utterances"), torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    for batch in batches(2):
        pace.counted(step, batch)
    assert pace._flops_per_row == 2 * 8**3 / 4
    assert graphs["unique_graphs"] - before == 1


def test_the_best_measure_of_the_device_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([1e9, 5e9, 2e9])
    monkeypatch.setattr("raykd.training.pace.product_rate", lambda *_: next(measured))
    pace = Pace(CPU, torch.float32, "utterances")
    found = []
    for batch in batches(6):
        pace.counted(lambda _: {}, batch)
        found.append(pace._rate)
    assert found == [1e9, 5e9, 5e9, 5e9, 5e9, 5e9]
    assert next(measured, None) is None, "measured before the steps 1, 2 and 4"


def test_the_rate_is_that_of_a_product() -> None:
    assert product_rate(CPU, torch.float32) > 1e8


def test_the_table_is_by_step_and_in_order() -> None:
    table = parts_table({"backward": 3.0, "other": 1.0, "student": 6.0}, steps=4)
    assert table.rows == (
        ("student", "1500.0", "60.0 %"),
        ("backward", "750.0", "30.0 %"),
        ("other", "250.0", "10.0 %"),
        ("together", "2500.0", "100.0 %"),
    )
