import io

import pytest
from rich.console import Console

from raykd.tracking.progress import Progress, duration
from tests.unit.example_run import eval_record, train_record


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def plain(out: io.StringIO, clock: Clock, **options: bool) -> Progress:
    return Progress(console=Console(file=out, width=20), clock=clock, every_s=10, **options)


def test_lines_come_every_few_seconds_where_there_is_no_terminal(out: io.StringIO) -> None:
    clock = Clock()
    with plain(out, clock) as progress:
        progress.phase("training", 40, "steps")
        for step in range(1, 31):
            clock.now = step * 2.0
            progress.record(train_record(step, loss=1.5))
    lines = out.getvalue().splitlines()
    assert lines[0] == "training: started, 40 steps"
    assert lines[1] == "training: 5/40 steps, 1:10 left, epoch 0.25, loss 1.5000, 30.0 utterances/s, 0:10 elapsed"
    assert len(lines) == 1 + 6 + 1
    assert lines[-1] == "training: done, 30 steps in 1:00"


def test_an_evaluation_is_a_line_and_is_remembered(out: io.StringIO) -> None:
    clock = Clock()
    with plain(out, clock) as progress:
        progress.phase("training", 40, "steps")
        progress.record(eval_record(20, 0.123))
        clock.now = 11
        progress.record(train_record(21))
    assert "evaluation at step 20: dev WER 12.30 %, CER 4.10 %" in out.getvalue()
    assert "utterances/s, dev WER 12.30 %," in out.getvalue()


def test_time_left_counts_from_the_step_resumed_from(out: io.StringIO) -> None:
    clock = Clock()
    with plain(out, clock) as progress:
        progress.phase("training", 100, "steps", done=80)
        clock.now = 10
        progress.update(81)
        clock.now = 20
        progress.update(91)
    assert "91/100 steps, 0:09 left" in out.getvalue()


def test_an_error_ends_the_phase_as_stopped(out: io.StringIO) -> None:
    with pytest.raises(RuntimeError), plain(out, Clock()) as progress:  # noqa: PT012
        progress.phase("preparing", unit="utterances")
        progress.update(1234)
        raise RuntimeError
    assert out.getvalue().splitlines()[-1] == "preparing: stopped, 1 234 utterances in 0:00"


def test_records_may_lack_numbers(out: io.StringIO) -> None:
    clock = Clock()
    with plain(out, clock) as progress:
        progress.phase("training", 2, "steps")
        clock.now = 20
        progress.record({"kind": "train", "step": 1, "steps": 2, "loss": None})
        progress.record({"kind": "event", "step": 1})
    assert "loss nan" in out.getvalue()


def test_quiet_says_nothing(out: io.StringIO) -> None:
    with plain(out, Clock(), quiet=True) as progress:
        progress.phase("speech", 3)
        progress.update(3)
        progress.say("hello")
    assert out.getvalue() == ""


def test_a_terminal_gets_one_live_line_and_lasting_ones(out: io.StringIO) -> None:
    with Progress(console=Console(file=out, force_terminal=True, width=120)) as progress:
        progress.phase("training", 40, "steps")
        progress.record(train_record(10))
        progress.phase("evaluating", 7, "utterances")
        progress.update(7)
    assert "training: done, 10 steps in" in out.getvalue()
    assert "evaluating: done, 7 utterances in" in out.getvalue()
    assert "0/7 utterances" in out.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_the_live_line_says_how_long_it_will_take_however_narrow_the_terminal(out: io.StringIO, width: int) -> None:
    clock = Clock()
    with Progress(console=Console(file=out, force_terminal=True, width=width), clock=clock) as progress:
        progress.phase("training", 400, "steps")
        for step in range(1, 22):
            clock.now = 2.0 * step
            progress.record({**train_record(step), "steps": 400, "floor_share": 0.25})
        assert progress._live is not None
        progress._live.refresh()
    last = next(line for line in reversed(out.getvalue().split("\r")) if "21/400" in line)
    assert "training" in last
    assert "21/400 steps, 12:38 left, epoch 1.05, loss" in last
    assert ("…" in last) == (width == 80)
    assert "━" in last or width == 80


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "0:07"), (750, "12:30"), (11109, "3:05:09")])
def test_durations_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_evaluation_shows_whatever_it_measured(out: io.StringIO) -> None:
    clock = Clock()
    with plain(out, clock) as progress:
        progress.phase("training", 40, "steps")
        progress.record(eval_record(20, 0.123, loss=1.5, invalid_word_share=0.031))
        progress.record(
            {"kind": "eval", "step": 30, "split": "dev", "loss": 2.5, "top5_accuracy": 0.75, "pseudo_perplexity": 12.2}
        )
        clock.now = 11
        progress.record(train_record(31))
    assert "evaluation at step 20: dev WER 12.30 %, CER 4.10 %, invalid words 3.10 %, loss 1.5000\n" in out.getvalue()
    assert "evaluation at step 30: dev loss 2.5000, top-5 75.00 %, pseudo-perplexity 12.2\n" in out.getvalue()
    assert "utterances/s, dev loss 2.5000," in out.getvalue()
