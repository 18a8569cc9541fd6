"""MLflow, from a thread of its own: an unreachable server costs one line on the terminal, never the training.

Metrics that cannot be sent wait in `<run>/mlflow_spool.jsonl`; they go out when the server answers again, at the end of the
run, or when the run is resumed. `<run>/mlflow_unsent` marks a run whose results may not have arrived.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from raykd import storage
from raykd.config import RunConfig
from raykd.errors import UserError
from raykd.models.experts import expert_languages
from raykd.models.whisper import read_config
from raykd.shown import tree_without_secrets, without_secrets
from raykd.tracking.history import JsonLines, read_json_lines
from raykd.tracking.metrics import Metrics, package_versions
from raykd.tracking.mlflow_model import log_whisper
from raykd.tracking.mlflow_values import Point, flat_params, points_of_metrics, points_of_record
from raykd.tracking.mlm import MlmMetrics, points_of_mlm_metrics
from raykd.tracking.run_folder import RunFolder

RETRY_S = 20.0
"""Pause before a server that did not answer is asked again."""
SYSTEM_METRICS_S = 10.0
ANSWER_S = 60.0
"""Longest wait at the end of a run for a server that has not answered yet."""
UPLOAD_S = 1800.0
"""Longest wait at the end of a run for artifacts and the model to be stored by a server that answers."""
SPOOL = "mlflow_spool.jsonl"
UNSENT = "mlflow_unsent"
STORED_FILES = ("config.yaml", "metrics.json", "report.html", "history.jsonl")

Job = Callable[[], None]


class MlflowTracker:
    """The MLflow run of a run folder. No method waits for the server but `close`, and none raises for its sake."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        *,
        say: Callable[[str], None] = print,
    ) -> None:
        """Start, or go on with the MLflow run that the folder names (`mlflow_run_id`), sending what its spool holds first.

        `say` prints a line for the user.
        """
        self.uri = tracking_uri(config)
        self._config, self._run, self._say = config, run, say
        self._spool = JsonLines(run.at(SPOOL))
        self._spooled = run.has(SPOOL)
        self._lock = threading.Lock()  # guards the spool
        self._queue: queue.Queue[list[Point] | Job | None] = queue.Queue()
        self._jobs: list[Job] = []
        self._client: Any = None
        self._run_id: str | None = None
        self._answering = False
        self._retry_at = 0.0
        self._warned = False
        self._closing = self._given_up = False
        self._sample_at = time.monotonic() + SYSTEM_METRICS_S
        self._monitor: Any = None
        self._started_ms = 0
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run, once the server has answered."""
        return self._run_id

    def record(self, record: Mapping[str, Any]) -> None:
        """Send the metrics of a history record (`train` or `eval`)."""
        self._queue.put(points_of_record(record))

    def log_points(self, points: list[Point]) -> None:
        """Send metrics that are in no record, such as the final numbers."""
        self._queue.put(points)

    def store_files(self, *names: str) -> None:
        """Store files of the run folder as artifacts; default: config, metrics, report and history."""
        for name in names or STORED_FILES:
            self._queue.put(lambda name=name: self._store_file(name))  # type: ignore[misc]

    def log_data(self, name: str, digest: str, source: Mapping[str, Any], profile: Mapping[str, Any]) -> None:
        """Say what is trained on, by its source and digest."""
        self._queue.put(lambda: self._log_data(name, digest, source, profile))

    def log_student(self) -> None:
        """Log `student/` as a model that `mlflow.transformers.load_model` loads as a speech recognition pipeline; one with
        language experts as files.
        """
        self._queue.put(self._log_student)

    def results_follow(self) -> None:
        """Mark the run until `close` has sent its results: a kill meanwhile, when the run counts as finished, loses none."""
        self._run.write_text(UNSENT, "")

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Send everything and end the MLflow run. Waits a bounded time; what could not be sent stays in the spool."""
        self._queue.put(lambda: self._client.set_terminated(self._run_id, status))
        self._closing = True
        self._queue.put(None)
        began = time.monotonic()
        while self._thread.is_alive() and time.monotonic() - began < (UPLOAD_S if self._answering else ANSWER_S):
            self._thread.join(0.1)
        self._keep(point for points in _drain(self._queue) for point in points)
        with self._lock:
            self._spool.flush()
        if not self._given_up and (self._spooled or self._jobs or self._thread.is_alive()):
            self._run.write_text(UNSENT, "")
            self._say(f"MLflow: what could not be sent to {self.uri} waits in {self._run.path}; --resume sends it")
        elif status == "FINISHED":  # what was stopped may have results that were not even queued
            storage.delete_file(self._run.at(UNSENT))

    # ------------------------------------------------------------------------------------------ the thread

    def _work(self) -> None:
        keep_mlflow_quiet()
        closing = False
        while not closing:
            points: list[Point] = []
            for item in self._take():
                if item is None:
                    closing = True
                elif isinstance(item, list):
                    points += item
                else:
                    self._jobs.append(item)
            if closing or time.monotonic() >= self._retry_at:
                self._send(points)
            else:
                self._keep(points)

    def _take(self) -> Iterator[list[Point] | Job | None]:
        """What has been queued; waits up to a second for the first item."""
        try:
            yield self._queue.get(timeout=1.0)
            while True:
                yield self._queue.get_nowait()
        except queue.Empty:
            return

    def _send(self, points: list[Point]) -> None:
        if self._given_up:
            return
        if not self._answering:
            self._keep(points)  # asking may take a while; a crash meanwhile must lose nothing
            points = []
        try:
            self._connect()
            if self._spooled:
                self._send_spool()
            self._log(points)
            points = []
            self._run_jobs()
            self._sample_system()
        except UserError as error:  # waiting will not help
            self._given_up = True
            with self._lock:
                self._spool.clear()
                self._spooled, self._jobs = False, []
            self._say(f"MLflow: {error}; this run is not tracked, its metrics are in {self._run.history_path}")
        except Exception as error:  # any trouble with MLflow is a reason to wait, none to stop training
            self._keep(points)
            self._lost(error)

    def _connect(self) -> None:
        if self._answering:
            return
        import mlflow

        if self._client is None:
            self._client = mlflow.MlflowClient(self.uri)
        if self._run_id is None:
            self._run_id = self._resumed_run_id() or self._new_run_id()
            self._run.write_text("mlflow_run_id", self._run_id)
            self._started_ms = self._client.get_run(self._run_id).info.start_time
            self._log_params()
        else:
            self._client.get_run(self._run_id)
        self._answering = True
        if self._warned:
            self._say(f"MLflow: {self.uri} answers; what waited is sent")
            self._warned = False

    def _resumed_run_id(self) -> str | None:
        from mlflow.exceptions import MlflowException

        run_id = self._run.read_text("mlflow_run_id").strip() if self._run.has("mlflow_run_id") else None
        if run_id is None:
            return None
        try:
            if self._client.get_run(run_id).info.lifecycle_stage == "deleted":
                self._say(f"MLflow: the run {run_id} was deleted; what comes now is in a new one")
                return None
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run_id

    def _new_run_id(self) -> str:
        from mlflow.tracking.context.registry import resolve_tags

        experiment = experiment_id(self._client, self._config.tracking.experiment)
        tags = {"raykd.version": package_versions()["raykd"], "raykd.run_folder": without_secrets(self._run.path)}
        if self._config.tracking.parent_run:
            tags["mlflow.parentRunId"] = self._config.tracking.parent_run
        return self._client.create_run(experiment, tags=resolve_tags(tags), run_name=self._run.name).info.run_id

    def _log_params(self) -> None:
        """Parameters of MLflow cannot change; a resume that changes some leaves the new values as tags.

        What is different in every run and is no setting of it is left out: MLflow's comparison shows first what differs.
        """
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(self._run_id).data.params
        params = flat_params(self._config.model_dump(mode="json", exclude={"name", "output_dir", "tracking"}))
        new = [Param(key, value) for key, value in params.items() if key not in known]
        for start in range(0, len(new), 100):
            self._client.log_batch(self._run_id, params=new[start : start + 100])
        changed = [RunTag(f"resumed.{key}", value) for key, value in params.items() if known.get(key, value) != value]
        for start in range(0, len(changed), 100):
            self._client.log_batch(self._run_id, tags=changed[start : start + 100])

    def _send_spool(self) -> None:
        with self._lock:
            records = read_json_lines(self._spool.path)
            self._log([Point(**record) for record in records])
            self._spool.clear()
            self._spooled = False

    def _log(self, points: list[Point]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(points), 500):
            batch = [Metric(point.key, point.value, point.timestamp, point.step) for point in points[start : start + 500]]
            self._client.log_batch(self._run_id, metrics=batch)

    def _run_jobs(self) -> None:
        while self._jobs:
            try:
                self._jobs[0]()
            except Exception as error:
                self._client.get_run(self._run_id)  # raises when the server is away: then the job is kept for later
                self._say(f"MLflow: {_first_line(error)}")
            self._jobs.pop(0)

    def _sample_system(self) -> None:
        if not self._config.tracking.system_metrics or self._closing or time.monotonic() < self._sample_at:
            return
        if self._monitor is None:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self._run_id, tracking_uri=self.uri)
        self._sample_at = time.monotonic() + SYSTEM_METRICS_S
        self._monitor.collect_metrics()
        now = int(time.time() * 1000)
        step = int((now - self._started_ms) / 1000 / SYSTEM_METRICS_S)
        self._log([Point(f"system/{key}", value, now, step) for key, value in self._monitor.aggregate_metrics().items()])
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()

    def _keep(self, points: Any) -> None:
        records = [point._asdict() for point in points]
        if not records or self._given_up:
            return
        try:
            with self._lock:
                self._spool.append(records)
                self._spooled = True
        except OSError as error:
            self._say(f"MLflow: {len(records)} metrics are lost, {self._spool.path} cannot be written ({_first_line(error)})")

    def _lost(self, error: Exception) -> None:
        self._answering = False
        self._retry_at = time.monotonic() + RETRY_S
        if not self._warned:
            self._warned = True
            self._say(
                f"MLflow: {self.uri} does not take our metrics ({_first_line(error)}); "
                "they wait in the run folder and are sent later"
            )

    # ------------------------------------------------------------------------------------------ files and the model

    def _store_file(self, name: str) -> None:
        if not self._run.has(name):
            return
        with storage.temporary_dir() as folder:
            copy = Path(folder) / Path(name).name
            copy.write_bytes(storage.read_bytes(self._run.at(name)))
            self._client.log_artifact(self._run_id, str(copy), str(Path(name).parent) if "/" in name else None)

    def _log_data(self, name: str, digest: str, source: Mapping[str, Any], profile: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        texts = (json.dumps(tree_without_secrets(value), ensure_ascii=False) for value in (source, profile))
        data = Dataset(name, digest, "raykd", next(texts), profile=next(texts))
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        self._client.log_inputs(self._run_id, datasets=inputs)

    def _log_student(self) -> None:
        with storage.local_copy(self._run.student_dir) as folder:
            if expert_languages(read_config(folder)):
                # As a pipeline of transformers' own class it would lose its experts without a word.
                self._client.log_artifacts(self._run_id, folder, "student")
            else:
                log_whisper(folder, self.uri, str(self._run_id))


def send_waiting(config: RunConfig, run: RunFolder, say: Callable[[str], None] = print) -> None:
    """Send what the server did not take while a run that is finished now was going on, and its results again; nothing happens
    when nothing waits."""
    if not (run.has(SPOOL) or run.has(UNSENT)):
        return
    tracker = MlflowTracker(config, run, say=say)
    tracker.log_points(_final_points(run))
    tracker.store_files()
    if config.tracking.log_model and run.has("student"):
        tracker.log_student()
    elif config.tracking.log_model and run.has("mlm"):
        tracker.store_files(*(f"mlm/{name}" for name in storage.list_dir(run.mlm_dir)))
    tracker.close()


def _final_points(run: RunFolder) -> list[Point]:
    metrics = run.read_json("metrics.json")
    if run.has("mlm"):
        return points_of_mlm_metrics(MlmMetrics.model_validate(metrics))
    return points_of_metrics(Metrics.model_validate(metrics))


def experiment_id(client: Any, name: str) -> str:
    """Of the experiment of that name. A new one is marked as one of training runs, which the UI then opens on.

    Raises:
        UserError: it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, tags={"mlflow.experimentKind": "custom_model_development"}))
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"tracking.experiment: {name} was deleted in MLflow; restore it (mlflow experiments restore --experiment-id "
            f"{found.experiment_id}) or give another name"
        )
    return str(found.experiment_id)


def tracking_uri(config: RunConfig) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, else `tracking.uri`, else `sqlite:///mlflow.db`; SQLite paths absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.uri or "sqlite:///mlflow.db"
    scheme, slashes, path = uri.partition(":///")
    return f"sqlite:///{os.path.abspath(path)}" if scheme == "sqlite" and slashes else uri


def ui_command(uri: str) -> str:
    """How a user looks at the runs of a store: its address, or the command that serves it."""
    return without_secrets(uri if uri.startswith(("http://", "https://")) else f"mlflow ui --backend-store-uri {uri}")


def _drain(waiting: "queue.Queue[list[Point] | Job | None]") -> Iterator[list[Point]]:
    while True:
        try:
            item = waiting.get_nowait()
        except queue.Empty:
            return
        if isinstance(item, list):
            yield item


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 140 else line[:137] + "..."


def keep_mlflow_quiet() -> None:
    """Few and short retries (training's own spool is the patience), and no log lines between ours. The user's settings win."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow  # noqa: F401  (it sets its loggers up when imported)

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
