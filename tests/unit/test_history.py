from pathlib import Path

from raykd.tracking.history import HistoryWriter, JsonLines, read_history, read_json_lines
from tests.unit.example_run import eval_record, train_record


def test_records_come_back_by_kind_and_step(tmp_path: Path) -> None:
    path = str(tmp_path / "run" / "history.jsonl")
    history = HistoryWriter(path)
    records = [train_record(1), eval_record(1, 0.5), {"kind": "event", "step": 1, "event": "restart"}, {"kind": "other"}]
    for record in records:
        history.record(record)
    read = read_history(path)
    assert (read.train, read.eval, read.events) == ([records[0]], [records[1]], [records[2]])


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    HistoryWriter(str(path)).record(train_record(1))
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    assert len(read_history(str(path)).train) == 1
    HistoryWriter(str(path)).record(train_record(2))
    assert [record["step"] for record in read_history(str(path)).train] == [1, 2]


def test_a_step_trained_again_replaces_the_first_time(tmp_path: Path) -> None:
    path = str(tmp_path / "history.jsonl")
    history = HistoryWriter(path)
    for step, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5)):
        history.record(train_record(step, loss=loss))
    for split, wer in (("dev", 0.5), ("test", 0.6), ("dev", 0.4)):
        history.record(eval_record(2, wer, split))
    read = read_history(path)
    assert [(record["step"], record["loss"]) for record in read.train] == [(1, 3.0), (2, 2.5), (3, 1.0)]
    assert [(record["split"], record["wer"]) for record in read.eval] == [("dev", 0.4), ("test", 0.6)]


def test_rewind_forgets_later_steps_and_keeps_events(tmp_path: Path) -> None:
    path = str(tmp_path / "history.jsonl")
    history = HistoryWriter(path)
    for step in range(1, 6):
        history.record(train_record(step))
    history.record(eval_record(5, 0.5))
    history.record({"kind": "event", "step": 5, "event": "restart"})
    history.rewind(3)
    history.record(train_record(4))
    read = read_history(path)
    assert [record["step"] for record in read.train] == [1, 2, 3, 4]
    assert not read.eval
    assert len(read.events) == 1


def test_nan_does_not_make_the_file_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    HistoryWriter(str(path)).record(train_record(1, loss=float("nan"), terms={"ce": float("inf")}))
    assert "NaN" not in path.read_text()
    [record] = read_history(str(path)).train
    assert record["loss"] is None
    assert record["terms"] == {"ce": None}


def test_line_separators_inside_text_do_not_cut_a_record(tmp_path: Path) -> None:
    path = str(tmp_path / "lines.jsonl")
    JsonLines(path).append([{"text": "a\u2028b\nc"}])
    assert read_json_lines(path) == [{"text": "a\u2028b\nc"}]


def test_no_file_is_an_empty_history(tmp_path: Path) -> None:
    assert read_history(str(tmp_path / "none.jsonl")).train == []


def test_remote_files_are_rewritten_now_and_then_and_at_the_end() -> None:
    path = "fsspec+memory://history-test/history.jsonl"
    lines = JsonLines(path, upload_every_s=3600)
    lines.append([{"n": 1}])
    lines.append([{"n": 2}])
    assert read_json_lines(path) == [{"n": 1}]
    lines.flush()
    assert read_json_lines(path) == [{"n": 1}, {"n": 2}]
    again = JsonLines(path, upload_every_s=0)
    again.append([{"n": 3}])
    assert [record["n"] for record in read_json_lines(path)] == [1, 2, 3]
    again.clear()
    assert read_json_lines(path) == []
