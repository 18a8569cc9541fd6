"""The teachers of a run: models that are there, or that raykd trains first; and a teacher's scores, which are kept."""

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from raykd import __version__, storage
from raykd.config import Config, MlmRunConfig, RunConfig, load_config, load_mlm_config
from raykd.config.base import Mark, mapped, trained_by_raykd
from raykd.data.corpus import Corpus
from raykd.data.sources.recognise import with_kinds
from raykd.evaluation.recogniser import ModelChoice
from raykd.evaluation.runner import Evaluation, EvaluationRequest, evaluate_model
from raykd.evaluation.vocabulary import Vocabulary
from raykd.lease import Owner, leased
from raykd.mlm_training import train_mlm
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.training.cluster import Resources

_LOOK_AGAIN_S = 2.0
"""Seconds until a run looks again whether the model that another one trains is there."""
_log = logging.getLogger(__name__)

Distil = Callable[[Config, bool], RunFolder]
"""(config, resume) -> the finished run."""
Say = Callable[[str], None]
"""Tells the user a line."""
RunConfigT = TypeVar("RunConfigT", bound=RunConfig)


def ensure_teacher(config: Config, distil: Distil, say: Say = _log.warning) -> str:
    """Hub id or folder of the teacher. A teacher named by a raykd config is trained once and kept in `data.cache_dir`.

    Raises:
        UserError: the teacher's config is wrong.
    """
    assert config.teacher is not None
    model = config.teacher.model
    return ensure_whisper(model, config, distil, say)


def ensure_whisper(model: str, config: Config, distil: Distil, say: Say) -> str:
    """Hub id or folder of a Whisper. One that is named by a raykd config is trained once and kept in `data.cache_dir`.

    Raises:
        UserError: its config is wrong.
    """
    if not trained_by_raykd(model):
        return model
    teacher = load_config(model)
    teacher = teacher.model_copy(update={"data": _cached_beside(teacher.data, config)})
    return _trained_once(teacher, config, "teachers", distil, say).student_dir


def ensure_models(config: Config, distil: Distil, progress: Progress) -> Config:
    """The config with the folder of every model that it names by a raykd config; such a model is trained once and kept.

    Raises:
        UserError: a model's config is wrong.
    """

    def folder(key: str, model: Any, marks: tuple[Mark, ...]) -> Any:
        if not any(mark.is_model for mark in marks) or not trained_by_raykd(model):
            return model
        if Mark.MLM in marks:
            return _ensure_mlm(model, config, progress)
        return ensure_whisper(model, config, distil, progress.say)

    return mapped(config, folder)


def _ensure_mlm(model: str, config: Config, progress: Progress) -> str:
    trained = load_mlm_config(model)
    trained = trained.model_copy(update={"text": _cached_beside(trained.text, config)})

    def train(mlm: MlmRunConfig, resume: bool) -> RunFolder:
        return train_mlm(mlm, resume, progress)

    return _trained_once(trained, config, "mlms", train, progress.say).mlm_dir


def _cached_beside(section: Any, config: Config) -> Any:
    return section.model_copy(update={"cache_dir": config.data.cache_dir})


def _trained_once(
    teacher: RunConfigT, config: Config, kind: str, train: Callable[[RunConfigT, bool], RunFolder], say: Say
) -> RunFolder:
    """The finished run of a teacher's config, on the machines of the run that it teaches.

    Of several runs that want it at once one trains it; the others wait, and one of them goes on with it should that one die.
    """
    teacher = with_kinds(teacher)
    folder = storage.join(config.data.cache_dir, kind, f"{teacher.name}-{_key(teacher)}")
    tracking = config.tracking.model_copy(update={"log_model": False})
    teacher = teacher.model_copy(update={"output_dir": folder, "tracking": tracking, "cluster": config.cluster})
    run = RunFolder.find(folder, teacher.name)
    if run is not None and run.finished:
        return run
    with leased(folder, _waiting(teacher.name, folder, say)):
        run = RunFolder.find(folder, teacher.name)
        return run if run is not None and run.finished else train(teacher, run is not None)


def _waiting(name: str, folder: str, say: Say) -> Callable[[Owner], None]:
    """What a run does while another one trains the model that both want."""
    said: list[Owner] = []

    def wait(owner: Owner) -> None:
        if not said:
            said.append(owner)
            say(f"{name} is being trained by another run ({owner}) in {folder}; waiting for it")
        time.sleep(_LOOK_AGAIN_S)

    return wait


def evaluate_teacher(
    model: str, model_hash: str, corpus: Corpus, split: str, config: Config, resources: Resources
) -> Evaluation:
    """The teacher's scores on a split, from `data.cache_dir` when the same weights were scored on the same data before."""
    assert config.teacher is not None
    settings = config.evaluation.model_dump(include={"batch_size", "max_new_tokens", "normalizer", "teacher_forced"})
    words = Vocabulary.load(config.evaluation.vocabulary).fingerprint if config.evaluation.vocabulary else None
    key = _hash([model_hash, corpus.key, split, settings, words, __version__])
    folder = storage.join(config.data.cache_dir, "evaluations", key)
    rows_path, summary_path = storage.join(folder, "rows.parquet"), storage.join(folder, "summary.json")
    kept = _kept_scores(rows_path, summary_path)
    if kept is not None:
        return kept
    request = EvaluationRequest(ModelChoice(model, config.teacher.revision), corpus, split, config.evaluation)
    evaluation = evaluate_model(request, gpus_per_worker=resources.evaluation_gpus, share=resources.share)
    evaluation.save_rows(rows_path)
    evaluation.save_summary(summary_path)
    return evaluation


def _kept_scores(rows_path: str, summary_path: str) -> Evaluation | None:
    """The scores of an earlier run; None when there are none or they cannot be read: they are computed again then."""
    if not storage.exists(summary_path):
        return None
    try:
        rows = pq.read_table(io.BytesIO(storage.read_bytes(rows_path)))
        summary = json.loads(storage.read_bytes(summary_path))
        if not isinstance(summary, dict) or not {"split", "wer"} <= summary.keys() or "wer" not in rows.column_names:
            raise ValueError("scores are missing")
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        _log.warning("%s: damaged (%s); the teacher is scored again", summary_path.rpartition("/")[0], reason)
        return None
    return Evaluation(rows, summary)


def _key(config: RunConfig) -> str:
    """Of everything that decides a model's weights."""
    tree = config.model_dump(mode="json", exclude={"name", "output_dir", "tracking", "cluster"})
    for section in ("data", "text"):
        tree.get(section, {}).pop("cache_dir", None)
    return _hash([tree, __version__])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
