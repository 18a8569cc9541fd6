"""Inside a Ray Tune trial, tasks without a scheduling strategy of their own are put into the trial's bundles: they failed or
waited for ever, and a run planned with the whole cluster.
"""

from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raykd.config.data import DemoSource
from raykd.config.training import ClusterConfig, EvaluationConfig
from raykd.data.corpus import Corpus
from raykd.data.demo.corpus import _tables, plan_shards
from raykd.evaluation.recogniser import ModelChoice
from raykd.evaluation.runner import EvaluationRequest, evaluate_model
from raykd.evaluation.speed import measure_speed
from raykd.training.cluster import plan_resources


@ray.remote(num_cpus=1)
def trial(corpus: Corpus, model: str) -> tuple[int, float, int, int]:
    """Holds the only bundle of its group, as a trial does."""
    config = EvaluationConfig(batch_size=4, max_new_tokens=2, speed_batch_sizes=(1,), speed_utterances=1)
    words = evaluate_model(EvaluationRequest(ModelChoice(model), corpus, "dev", config)).rows.num_rows
    speed = measure_speed(model, model, corpus, "dev", config)["batch_1"]["speedup"]
    return words, speed, plan_resources(ClusterConfig()).workers, len(speech())


def speech() -> list[object]:
    source = DemoSource(hours=0.003)
    return list(_tables(source, plan_shards(source)[:1]))


@pytest.mark.timeout(120)
def test_evaluation_speed_and_speech_find_room(ray_local: None, numbers: Corpus, tiny_whisper_dir: Path) -> None:
    whole = plan_resources(ClusterConfig()).workers
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready())
    inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    try:
        words, speed, workers, tables = ray.get(
            trial.options(scheduling_strategy=inside).remote(numbers, str(tiny_whisper_dir)), timeout=100
        )
    finally:
        remove_placement_group(group)
    assert words == 4
    assert speed > 0
    assert (whole, workers) == (2, 1), "one of two CPUs is the trial's own"
    assert tables == 1
