"""The teacher of a run: a model that is there, or one that raykd trains first; and its scores, which are kept."""

import hashlib
import io
import json
from collections.abc import Callable

import pyarrow.parquet as pq

from raykd import __version__, storage
from raykd.config import Config, load_config
from raykd.data.corpus import Corpus
from raykd.evaluation.runner import Evaluation, evaluate_model
from raykd.tracking.run_folder import RunFolder

Distil = Callable[[Config, bool], RunFolder]
"""(config, resume) -> the finished run."""


def ensure_teacher(config: Config, distil: Distil) -> str:
    """Hub id or folder of the teacher. A teacher named by a raykd config is trained once and kept in `data.cache_dir`.

    Raises:
        UserError: the teacher's config is wrong.
    """
    assert config.teacher is not None
    if not config.teacher.trained_by_raykd:
        return config.teacher.model
    teacher = load_config(config.teacher.model)
    cache_dir = config.data.cache_dir
    folder = storage.join(cache_dir, "teachers", f"{teacher.name}-{_key(teacher)}")
    teacher = teacher.model_copy(
        update={
            "output_dir": folder,
            "data": teacher.data.model_copy(update={"cache_dir": cache_dir}),
            "tracking": config.tracking.model_copy(update={"log_model": False}),
            "cluster": config.cluster,
        }
    )
    begun = storage.list_dir(folder)
    if begun:
        run = RunFolder.latest(folder, teacher.name)
        if run.finished:
            return run.student_dir
    return distil(teacher, bool(begun)).student_dir


def evaluate_teacher(
    model: str, model_hash: str, corpus: Corpus, split: str, config: Config, gpus_per_worker: float
) -> Evaluation:
    """The teacher's scores on a split, from `data.cache_dir` when the same weights were scored on the same data before."""
    assert config.teacher is not None
    settings = config.evaluation.model_dump(include={"batch_size", "max_new_tokens", "normalizer"})
    key = _hash([model_hash, corpus.key, split, settings, __version__])
    folder = storage.join(config.data.cache_dir, "evaluations", key)
    rows_path, summary_path = storage.join(folder, "rows.parquet"), storage.join(folder, "summary.json")
    if storage.exists(summary_path):
        rows = pq.read_table(io.BytesIO(storage.read_bytes(rows_path)))
        return Evaluation(rows, json.loads(storage.read_bytes(summary_path)))
    evaluation = evaluate_model(
        model,
        corpus,
        split,
        config.evaluation,
        revision=config.teacher.revision,
        gpus_per_worker=gpus_per_worker,
    )
    evaluation.save_rows(rows_path)
    evaluation.save_summary(summary_path)
    return evaluation


def _key(config: Config) -> str:
    """Of everything that decides a student's weights."""
    tree = config.model_dump(mode="json", exclude={"name": True, "output_dir": True, "tracking": True, "cluster": True})
    del tree["data"]["cache_dir"]
    return _hash([tree, __version__])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
