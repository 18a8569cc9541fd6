"""The MLflow run that the runs of a comparison or of a sweep are shown under. Trouble with MLflow is told and stops nothing."""

from collections.abc import Callable, Mapping
from typing import Literal

from raykd import storage
from raykd.config import RunConfig
from raykd.tracking.mlflow import experiment_id, keep_mlflow_quiet, tracking_uri
from raykd.tracking.mlflow_model import register
from raykd.tracking.mlflow_values import MAX_PARAM, points
from raykd.tracking.run_folder import RunFolder

_KEPT = "mlflow_run_id"
"""File in the folder of a comparison or sweep, as in a run's."""


class ParentRun:
    """An MLflow run above others."""

    def __init__(self, uri: str, run_id: str, say: Callable[[str], None]) -> None:
        import mlflow

        self.uri, self.run_id, self._say = uri, run_id, say
        self._client = mlflow.MlflowClient(uri)

    def finish(
        self, values: Mapping[str, float], files: Mapping[str, str], status: Literal["FINISHED", "FAILED", "KILLED"]
    ) -> None:
        """Its numbers and files (name: text), and its end."""

        def log() -> None:
            for point in points(values, 0):
                self._client.log_metric(self.run_id, point.key, point.value, point.timestamp, point.step)
            for name, text in files.items():
                self._client.log_text(self.run_id, text, name)
            self._client.set_terminated(self.run_id, status)

        self._tried(log)

    def end_child(self, run: RunFolder, state: str, status: Literal["FAILED", "KILLED"]) -> None:
        """The end of a run that could not say it itself, with the reason as a tag."""

        def end(run_id: str) -> None:
            self._client.set_tag(run_id, "raykd.state", state)
            self._client.set_terminated(run_id, status)

        self._with_child(run, end)

    def mark_best(self, run: RunFolder, register_as: str | None) -> None:
        """Tag the best of the children, and make its student a version of a registered model when a name is given."""

        def mark(run_id: str) -> None:
            self._client.set_tag(run_id, "raykd.best", "true")
            self._client.set_tag(self.run_id, "raykd.best_run", run_id)
            if register_as is not None:
                version = register(f"runs:/{run_id}/student", register_as, self.uri)
                self._say(f"MLflow: {register_as}, version {version}, is the student of {run.name}")

        self._with_child(run, mark)

    def _with_child(self, run: RunFolder, action: Callable[[str], None]) -> None:
        if run.has(_KEPT):
            self._tried(lambda: action(run.read_text(_KEPT).strip()))

    def _tried(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # the numbers are in the folder; MLflow is one more place for them
            self._say(f"MLflow: {str(error).splitlines()[0]}")


def parent_run(
    config: RunConfig, folder: str, name: str, kind: str, params: Mapping[str, str], say: Callable[[str], None] = print
) -> ParentRun | None:
    """A new parent run, or the one that the folder names. None where nothing is tracked, or the server does not answer.

    `config`: of any of the runs below it; `kind`: `comparison` or `sweep`.
    """
    if not config.tracking.mlflow:
        return None
    keep_mlflow_quiet()
    kept = storage.join(folder, _KEPT)
    uri = tracking_uri(config)
    try:
        import mlflow
        from mlflow.entities import Param

        client = mlflow.MlflowClient(uri)
        if storage.exists(kept):
            run_id = storage.read_bytes(kept).decode().strip()
            client.update_run(run_id, status="RUNNING")
        else:
            experiment = experiment_id(client, config.tracking.experiment)
            run_id = client.create_run(experiment, run_name=name, tags={"raykd.kind": kind}).info.run_id
            client.log_batch(run_id, params=[Param(key, value[:MAX_PARAM]) for key, value in params.items()])
            storage.write_text(kept, run_id)
    except Exception as error:  # whatever a server answers
        say(f"MLflow: {str(error).splitlines()[0]}; the runs are tracked without a parent")
        return None
    return ParentRun(uri, run_id, say)
