"""What a run is said to need and to reach, before it begins."""

from dataclasses import replace
from typing import Any

import pytest

from raykd import storage
from raykd.config.label import CacheConfig
from raykd.models.facts import RunFacts
from raykd.models.forecast import (
    cache_gain,
    data_verdict,
    disk,
    epoch_seconds,
    forecast_rows,
    memory_per_worker,
    out_of_proportion,
)
from raykd.models.size import ParameterCount
from tests.unit.test_banner import RUN, STUDENT, TEACHER

ONE = replace(RUN, workers=1, zero_stage=0, batch_size=64, accumulation=1, tokens_per_utterance=24.0)


def changed(**changes: Any) -> RunFacts:
    return replace(RUN, **changes)


def test_memory_is_near_what_an_h100_took() -> None:
    """large-v2 to 32+2 in bfloat16, 64 utterances of 24 tokens: 8.3 GiB at most (RESULTS.md)."""
    assert memory_per_worker(ONE).total == pytest.approx(8.3 * 2**30, rel=0.25)


def test_weights_gradients_and_moments_are_shared_out_by_stage() -> None:
    trains = STUDENT.parameters.trainable
    of_stage = [memory_per_worker(changed(workers=4, zero_stage=stage)).student for stage in (0, 1, 2, 3)]
    bytes_each = [16, 8 + 8 / 4, 4 + 12 / 4, 16 / 4]
    frozen = (STUDENT.parameters.total - trains) * 2
    assert of_stage == [trains * each + frozen for each in bytes_each]


def test_a_cached_teacher_takes_no_memory_and_a_sharded_one_its_share() -> None:
    shared = TEACHER.parameters.total - (STUDENT.parameters.total - STUDENT.parameters.trainable)
    assert memory_per_worker(RUN).teacher == shared * 2
    assert memory_per_worker(changed(teacher_sharded=True)).teacher == shared * 2 / 4
    assert memory_per_worker(changed(encoder_shared=False)).teacher == TEACHER.parameters.total * 2
    assert memory_per_worker(changed(kept=frozenset({"topk"}))).teacher == 0
    both = memory_per_worker(changed(kept=frozenset({"topk", "encoder"})))
    assert both.student < memory_per_worker(RUN).student
    assert both.activations < memory_per_worker(RUN).activations


def test_disk_of_caches_is_exact() -> None:
    cache = CacheConfig(k=10, temperatures=(1.0,), views=2, states="int8")
    needs = disk(changed(cache=cache, windows=3))
    assert needs.topk == 2 * 3 * RUN.tokens_per_utterance * (10 * 4 + 4)
    assert needs.encoder == 2 * 3 * 1500 * 1280
    assert needs.checkpoint == STUDENT.parameters.trainable * 12


@pytest.mark.parametrize(
    ("hours", "steps", "words", "warning"),
    [
        (3, 5_000, "does not learn to speak", "3 h of audio will not train a 2-layer decoder of openai/whisper-large-v2"),
        (300, 400, "does not learn to speak", "400 steps will not train"),
        (30, 5_000, "3 to 6 times", "more passes help first"),
        (300, 5_000, "1.3 to 2 times", None),
        (2_000, 5_000, "at most 1.2 times", None),
    ],
)
def test_hours_against_the_published_curve(hours: float, steps: int, words: str, warning: str | None) -> None:
    facts = changed(hours=hours, steps=steps)
    assert words in data_verdict(facts)
    found = out_of_proportion(facts)
    assert len(found) == (warning is not None)
    assert warning is None or warning in found[0]


def test_the_curve_is_for_a_few_copied_layers_of_a_large_teacher() -> None:
    small = replace(TEACHER, dims=type(TEACHER.dims)(**{**TEACHER.dims.to_diff_dict(), "d_model": 512}))
    many = replace(STUDENT, dims=TEACHER.dims)
    for facts in (
        changed(hours=3.0, copied=False),
        changed(hours=3.0, teacher=None),
        changed(hours=3.0, teacher=small),
        changed(hours=3.0, student=many),
    ):
        assert "no curve is published" in data_verdict(facts)
        assert not out_of_proportion(facts)


def test_what_does_not_fit_is_told_with_a_remedy_that_fits() -> None:
    needs = memory_per_worker(ONE)
    tight = replace(ONE, memory=int(needs.student + needs.teacher + needs.activations / 3))
    (found,) = out_of_proportion(tight)
    assert "train.micro_batch_size: 21" in found
    assert not out_of_proportion(replace(tight, batch_size=21))
    (found,) = out_of_proportion(replace(ONE, memory=10**9))
    assert "train.zero_stage: 3" in found
    (found,) = out_of_proportion(replace(ONE, free_disk=10**9))
    assert "output_dir" in found


def test_a_cache_is_offered_where_it_would_serve() -> None:
    def offer(**changes: Any) -> str:
        return dict(forecast_rows(changed(**changes))).get("cache", "")

    assert "--cache both" in offer()
    assert "--cache topk" in offer(encoder_shared=False)
    for none in ({"teacher": None}, {"cacheable": False}, {"kept": frozenset({"topk"})}, {"steps": 400}):
        assert offer(**none) == ""
    student = 3 * (STUDENT.flops.decoder + STUDENT.flops.head)
    assert cache_gain(RUN) == pytest.approx((student + TEACHER.flops.total) / student)


def test_time_of_an_epoch_leaves_the_start_out() -> None:
    assert epoch_seconds([60.0, 9.0, 2.0, 2.0, 7.0, 2.0, 2.0], 10) == 20.0
    assert epoch_seconds([5.0], 2) == 10.0


def test_free_room_of_a_folder_that_is_not_there_yet(tmp_path: Any) -> None:
    assert (storage.free_bytes(f"{tmp_path}/a/b") or 0) > 0
    assert storage.free_bytes("s3://bucket/runs") is None


def test_parameters_are_counted_once() -> None:
    assert memory_per_worker(replace(ONE, student=replace(STUDENT, parameters=ParameterCount(10, 10)))).student == 160
