"""What changes how a step is computed: type of the products, checkpointed activations, dropout, SpecAugment, language mixes."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd import storage
from raykd.parts.clock import Clock
from raykd.parts.timing import OTHER, PARTS
from raykd.training.loop import Trainer
from raykd.training.profiling import TRACE, WARM_UP
from raykd.training.student_job import StudentJob
from tests.jobs import MakeJob
from tests.training.test_training import assert_same_parameters, losses, resumed_at
from tests.training.workers import final_parameters, train_in_processes


def with_dropout(job: StudentJob, share: float = 0.3) -> StudentJob:
    file = Path(job.student) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "dropout": share}), "utf-8")
    return job


def precisions(records: list[dict]) -> set[str]:
    return {record["precision"] for record in records if record["kind"] == "train"}


def test_bfloat16_is_what_the_products_are_taken_in(make_job: MakeJob) -> None:
    wide, narrow = make_job("wide"), make_job("narrow", precision="bfloat16")
    trained = make_job("trained", precision="bfloat16", student={"freeze_encoder": False}, zero_stage=3)
    by_float32, by_bfloat16, with_encoder = train_in_processes([wide, narrow, trained], world=1)
    assert precisions(by_float32) == {"float32"}
    assert precisions(by_bfloat16) == precisions(with_encoder) == {"bfloat16"}
    assert losses(by_bfloat16) == pytest.approx(losses(by_float32), rel=1e-2)
    assert losses(by_bfloat16) != pytest.approx(losses(by_float32), rel=1e-6), "rounding shows"
    assert {value.dtype for value in final_parameters(narrow).values()} == {torch.float32}


def test_checkpointed_activations_change_nothing(make_job: MakeJob) -> None:
    """Under dropout too: the second forward pass draws what the first drew."""
    student = {"freeze_encoder": False}
    kept = with_dropout(make_job("kept", student=student))
    again = with_dropout(make_job("again", student={**student, "gradient_checkpointing": True}))
    reference, recomputed = train_in_processes([kept, again], world=1)
    assert losses(recomputed) == pytest.approx(losses(reference), rel=1e-6)
    assert_same_parameters(again, final_parameters(kept))


def test_dropout_is_drawn_by_step_so_that_a_resumed_run_goes_on_as_it_would(make_job: MakeJob) -> None:
    none, whole = make_job("none", steps=6, checkpoint_every=3), make_job("whole", steps=6, checkpoint_every=3)
    without, reference = train_in_processes([none, with_dropout(whole)], world=1)
    expected = final_parameters(whole)
    assert losses(without) != pytest.approx(losses(reference), rel=1e-4), "there is dropout"
    (resumed,) = train_in_processes([resumed_at(whole, 3)], world=1)
    assert losses(resumed) == pytest.approx(losses(reference)[3:], rel=1e-6)
    assert_same_parameters(whole, expected)


def test_workers_and_micro_batches_draw_other_dropout() -> None:
    def seed(rank: int, micro: int, step: int) -> int:
        nothing: Any = None
        trainer = Trainer(nothing, 3, nothing, nothing, nothing, "utterances", rank=rank, world=2)
        trainer._seed(Clock(step, 9, 3, 3), micro)
        return torch.initial_seed()

    drawn = {seed(rank, micro, step) for rank in range(2) for micro in range(2) for step in range(2)}
    assert len(drawn) == 8


def test_spec_augment_hangs_on_no_worker(make_job: MakeJob) -> None:
    augmented = {"inputs": [{"kind": "spec_augment"}]}
    plain, masked, on_two = (make_job(name, more=more) for name, more in (("p", {}), ("m", augmented), ("t", augmented)))
    without, reference = train_in_processes([plain, masked], world=1)
    assert losses(without) != pytest.approx(losses(reference), rel=1e-6), "there are masks"
    (by_two,) = train_in_processes([on_two], world=2)
    assert losses(by_two) == pytest.approx(losses(reference), rel=1e-5)


def test_a_mix_of_languages_is_what_is_trained_on(make_job: MakeJob) -> None:
    """5 of 22 utterances are Polish; the mix asks for half."""
    more = {"data": {"source": "unused.jsonl", "mix": {"shares": {"cs": 0.5, "pl": 0.5}}}}
    one, two = make_job("one", more=more), make_job("two", more=more)
    remote = "fsspec+file://" + f"{two.checkpoints}-ids"
    one, two = replace(one, trained_ids=f"{one.checkpoints}-ids"), replace(two, trained_ids=remote)
    (reference,), (by_two,) = train_in_processes([one], world=1), train_in_processes([two], world=2)
    assert losses(by_two) == pytest.approx(losses(reference), rel=1e-5)
    assert trained(one) == trained(two)
    index = one.corpus.index("train")
    language = dict(zip(index.ids, index.languages, strict=True))
    polish = sum(language[name] == "pl" for name in trained(one))
    assert polish == pytest.approx(len(trained(one)) / 2, abs=2)


def trained(job: StudentJob) -> list[str]:
    assert job.trained_ids is not None
    files = [storage.join(job.trained_ids, name) for name in storage.list_dir(job.trained_ids)]
    lines = [line for file in files for line in storage.read_bytes(file).decode().splitlines()]
    return sorted(name for line in lines for name in json.loads(line)["ids"])


def test_a_student_with_short_windows_is_the_same_on_two_workers(make_job: MakeJob) -> None:
    """Its window is the clip's and a margin that follows from (seed, step); the teacher hears the whole one."""
    objective = {"terms": [{"kind": "ce"}, {"kind": "kl"}, {"kind": "hidden_states", "weight": 0.1}]}
    window = {"margin": 6, "jitter": 6, "whole_share": 0.3}
    usual = {"steps": 5, "student": {"decoder_layers": 1, "window": window, "freeze_encoder": False}, "objective": objective}
    one, two, whole = (make_job(f"window-{name}", **usual) for name in ("one", "two", "whole"))
    update = {"student": whole.config.student.model_copy(update={"window": "whole"})}
    whole = replace(whole, config=whole.config.model_copy(update=update))
    by_one, with_whole = train_in_processes([one, whole], world=1)
    (by_two,) = train_in_processes([two], world=2)
    assert losses(by_two) == pytest.approx(losses(by_one), rel=2e-5)
    assert_same_parameters(two, final_parameters(one))
    assert losses(with_whole) != pytest.approx(losses(by_one), rel=1e-3), "the window makes a difference"


def test_a_profile_has_all_parts_of_a_step_and_a_trace(make_job: MakeJob, tmp_path: Path) -> None:
    job = replace(make_job("profiled", steps=20), first_steps=WARM_UP + 2, profile=str(tmp_path / "profile"))
    (records,) = train_in_processes([job], world=2)
    (found,) = [record for record in records if record["kind"] == "profile"]
    assert found["step"] == WARM_UP + 2
    assert {*PARTS, OTHER} == set(found["seconds"])
    assert all(seconds > 0 for seconds in found["seconds"].values())
    trace = json.loads(gzip.decompress((tmp_path / "profile" / TRACE).read_bytes()))
    assert {"student", "objective", "backward"} <= {event.get("name") for event in trace["traceEvents"]}
    for record in (one for one in records if one["kind"] == "train"):
        assert 0 < record["floor_share"] < 1
        assert 0 <= record["data_wait"] <= 1
        assert record["target_passes"] == record["utterances"]
