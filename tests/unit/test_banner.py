"""The start-up banner tells sizes and batch, and warns of slow paths and only of those."""

from dataclasses import replace
from typing import Any

import pytest
from transformers import WhisperConfig

from raykd.config.label import CacheConfig
from raykd.config.models import ScratchConfig
from raykd.models.banner import banner_text, slow_paths
from raykd.models.demo import new_whisper
from raykd.models.facts import ModelFacts, RunFacts, model_facts
from raykd.models.size import Flops, ParameterCount
from raykd.parts.students.layer_copy import LayerCopy

LARGE: dict[str, Any] = {
    "d_model": 1280,
    "encoder_layers": 32,
    "decoder_layers": 32,
    "encoder_attention_heads": 20,
    "decoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_ffn_dim": 5120,
}
TEACHER = ModelFacts(
    "openai/whisper-large-v2",
    WhisperConfig(**LARGE),
    "32+32 layers, width 1280",
    ParameterCount(1_543_304_960, 0),
    Flops(2_000_000_000_000, 300_000_000_000, 4_000_000_000),
    "bfloat16",
    "sdpa",
)
STUDENT = ModelFacts(
    "from the teacher",
    WhisperConfig(**{**LARGE, "decoder_layers": 2}),
    "32+2 layers, width 1280",
    ParameterCount(756_000_000, 119_000_000),
    Flops(0, 20_000_000_000, 4_000_000_000),
    "bfloat16",
    "sdpa",
)
RUN = RunFacts(
    name="large",
    folder="runs/large",
    student=STUDENT,
    teacher=TEACHER,
    encoder_frozen=True,
    encoder_shared=True,
    teacher_sharded=False,
    device="NVIDIA H200",
    on_gpu=True,
    bfloat16_available=True,
    cluster_gpus=4,
    workers=4,
    zero_stage=1,
    parts=(),
    batch_size=256,
    accumulation=2,
    steps=1000,
    steps_per_epoch=400,
    utterances=102_400,
    windows=102_400,
    hours=500.0,
    languages=("cs", "pl"),
    tokens_per_utterance=40.0,
    window_s=30.0,
    copied=True,
    kept=frozenset(),
    cache=CacheConfig(),
    cacheable=True,
    keep_checkpoints=2,
    memory=80_000_000_000,
    free_disk=10**12,
)


def test_the_banner_of_a_fast_run_has_the_numbers_and_no_warning() -> None:
    text = banner_text(RUN)
    for words in (
        "1,543.3 M parameters (frozen), 2,304 GFLOP an utterance",
        "756.0 M parameters (119.0 M train)",
        "24 GFLOP an utterance",
        "encoder run once for both",
        "102,400 utterances, 500.00 h, 17.6 s and 40.0 tokens each, cs pl",
        "4 x NVIDIA H200, ZeRO stage 1",
        "256 utterances (4 workers x 2 accumulated x 32), about 10,240 tokens a step",
        "1,000 steps, 2.5 epochs of 400",
        "bfloat16, sdpa attention",
    ):
        assert words in text
    assert "WARNING" not in text


def test_packed_utterances_are_told_apart_from_their_windows() -> None:
    text = banner_text(replace(RUN, windows=60_000))
    assert "102,400 utterances in 60,000 windows, 500.00 h, 30.0 s and" in text
    assert "256 windows (4 workers" in text


def test_parts_of_the_users_own_are_told() -> None:
    assert "parts" not in banner_text(RUN)
    assert "code of your own from focal.py, sharper.py" in banner_text(replace(RUN, parts=("focal.py", "sharper.py")))


def test_a_run_without_teacher_has_no_teacher_line() -> None:
    text = banner_text(replace(RUN, teacher=None, encoder_shared=False, encoder_frozen=False))
    assert "teacher" not in text.replace("from the teacher", "")
    assert "WARNING" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"student": replace(STUDENT, attention="eager")}, "the student uses eager attention"),
        ({"teacher": replace(TEACHER, dtype="float32")}, "teacher.dtype: bfloat16"),
        ({"student": replace(STUDENT, dtype="float32")}, "train.precision: bfloat16"),
        ({"encoder_shared": False}, "two encoders run"),
        ({"on_gpu": False}, "the cluster has 4 GPUs; set cluster.use_gpu: true"),
        ({"workers": 2}, "2 of 4 GPUs have no training worker"),
        ({"zero_stage": 3}, "train.zero_stage: 1"),
        ({"batch_size": 250}, "train.batch_size: 256"),
        ({"utterances": 200, "windows": 200, "hours": 1.0, "copied": False}, "200 utterances, fewer than a batch of 256"),
        ({"hours": 50.0, "copied": False}, "utterances fill 6% of the 30 s window"),
        ({"workers": 1, "cluster_gpus": 1, "teacher_sharded": True}, "teacher.sharded with one worker"),
    ],
)
def test_each_slow_path_is_one_loud_line(change: dict[str, Any], words: str) -> None:
    facts = replace(RUN, **change)
    warnings = slow_paths(facts)
    assert len(warnings) == 1, warnings
    assert words in warnings[0]
    assert f"WARNING  {warnings[0]}" in banner_text(facts).splitlines()[-1]


def test_float32_is_no_slow_path_where_there_is_nothing_faster() -> None:
    float32 = replace(STUDENT, dtype="float32")
    assert not slow_paths(replace(RUN, student=float32, bfloat16_available=False))
    assert not slow_paths(replace(RUN, student=float32, on_gpu=False, cluster_gpus=0, device="CPU"))


def test_a_teacher_whose_answers_were_kept_slows_nothing() -> None:
    changed = replace(RUN, encoder_shared=False, teacher=replace(TEACHER, dtype="float32", attention="eager"))
    assert slow_paths(changed)
    assert not slow_paths(replace(changed, kept=frozenset({"topk"})))


def test_facts_of_a_model() -> None:
    model = new_whisper(ScratchConfig(width=16, heads=2, ffn=16, encoder_layers=2, decoder_layers=1, window_s=1.0), seed=0)
    LayerCopy().freeze(model)
    alone = model_facts("student", model, tokens=10.4, dtype="float32")
    shared = model_facts("student", model, tokens=10.4, dtype="float32", shared_encoder=True)
    assert alone.shape == "2+1 layers, width 16"
    assert alone.attention == "sdpa"
    assert alone.flops.total > shared.flops.total > 0
    assert 0 < alone.parameters.trainable < alone.parameters.total
