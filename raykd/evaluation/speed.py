"""How much faster the student is than its teacher, on the same utterances, in one process, taking turns.

The real-time factor (RTF) is processing seconds per second of audio: encoder and greedy decoding, batch by batch, each in the
window that its model hears; features are made beforehand and not counted. Both models are warmed up; then every batch goes to
the one and to the other in turn, the whole set several times, so that a slow spell of the machine hits both. RTFs are medians
over the repeats, and `speedup` is the ratio of the medians.
"""

import statistics
import time
from collections.abc import Sequence

import numpy as np
import ray
import torch
from ray.exceptions import RayTaskError

from raykd.config.models import DType
from raykd.config.training import EvaluationConfig
from raykd.data.corpus import Corpus, Utterance, read_utterances
from raykd.errors import UserError
from raykd.evaluation.recogniser import ModelChoice, Recogniser
from raykd.evaluation.runner import WORKER_CPUS

REPEATS = 3
"""Times the whole set is processed by each model."""
BUDGET_S = 60.0
"""No further repeat is begun after so many seconds for one batch size."""

Speed = dict[str, dict[str, float]]


def measure_speed(
    teacher: str,
    student: str,
    corpus: Corpus,
    split: str,
    config: EvaluationConfig,
    *,
    teacher_revision: str | None = None,
    dtype: DType = "auto",
    gpus: float = 0.0,
    share: float = 1.0,
) -> Speed:
    """Real-time factors for each of `config.speed_batch_sizes`, in one Ray task; in this process where Ray is not initialised.

    The task reserves next to no CPU (see `runner.WORKER_CPUS`) and uses all cores of its node, or its share of them: measure
    when nothing else runs. Beside other trials of a sweep the ratio still compares, the factors do not.

    Args:
        teacher: local folder in Hugging Face format, or hub id.
        student: the same.
        corpus: prepared for models with their features.
        split: of the corpus; `config.speed_utterances` of it are used, evenly spaced by duration.
        config: batch sizes, longest transcript.
        teacher_revision: of the teacher's hub id.
        dtype: of both models' weights.
        gpus: GPUs for the task; 0: measure on the CPU.
        share: of its node's cores.

    Returns:
        `{"batch_1": {"teacher_rtf", "student_rtf", "speedup"}, ...}`.

    Raises:
        UserError: a model cannot be loaded or does not fit the corpus.
    """
    choices = (ModelChoice(teacher, teacher_revision, dtype=dtype), ModelChoice(student, dtype=dtype))
    if not ray.is_initialized():
        return _measure(choices, corpus, split, config, use_gpu=gpus > 0)
    # Said aloud, the strategy keeps the task out of the bundles of a Ray Tune trial.
    task = ray.remote(num_cpus=WORKER_CPUS, num_gpus=gpus, max_retries=1, scheduling_strategy="DEFAULT")(_measure_in_task)
    try:
        return ray.get(task.remote(choices, corpus, split, config, gpus > 0, share))
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError) else error from None


def _measure_in_task(
    choices: tuple[ModelChoice, ModelChoice],
    corpus: Corpus,
    split: str,
    config: EvaluationConfig,
    use_gpu: bool,
    share: float,
) -> Speed:
    # Ray sets one thread for tasks that reserve less than a core.
    nodes = sum(node["Alive"] for node in ray.nodes())
    torch.set_num_threads(max(1, int(share * ray.cluster_resources().get("CPU", 1)) // nodes))
    return _measure(choices, corpus, split, config, use_gpu)


def _measure(
    choices: tuple[ModelChoice, ModelChoice], corpus: Corpus, split: str, config: EvaluationConfig, use_gpu: bool
) -> Speed:
    device = torch.device("cuda" if use_gpu else "cpu")
    teacher, student = (Recogniser(choice, device, config.max_new_tokens) for choice in choices)
    index = corpus.index(split)
    by_duration = np.argsort(np.asarray(index.duration_s), kind="stable")
    spread = np.linspace(0, len(by_duration) - 1, min(config.speed_utterances, len(by_duration))).round().astype(int)
    utterances = read_utterances(corpus.path, index, by_duration[spread])
    return {f"batch_{size}": compare(teacher, student, utterances, size) for size in config.speed_batch_sizes}


def compare(
    teacher: Recogniser,
    student: Recogniser,
    utterances: Sequence[Utterance],
    batch_size: int,
    repeats: int = REPEATS,
    budget_s: float = BUDGET_S,
) -> dict[str, float]:
    """`teacher_rtf`, `student_rtf` and `speedup` for one batch size."""
    batches = [utterances[begin : begin + batch_size] for begin in range(0, len(utterances), batch_size)]
    audio_s = sum(utterance.duration_s for utterance in utterances)
    for model in (teacher, student):
        model.recognise(batches[0])
    began = time.perf_counter()
    teacher_s: list[float] = []
    student_s: list[float] = []
    while len(teacher_s) < repeats and (not teacher_s or time.perf_counter() - began < budget_s):
        turns = [(teacher.recognise(batch).seconds, student.recognise(batch).seconds) for batch in batches]
        teacher_s.append(sum(seconds for seconds, _ in turns))
        student_s.append(sum(seconds for _, seconds in turns))
    teacher_rtf, student_rtf = statistics.median(teacher_s) / audio_s, statistics.median(student_s) / audio_s
    return {"teacher_rtf": teacher_rtf, "student_rtf": student_rtf, "speedup": teacher_rtf / student_rtf}
