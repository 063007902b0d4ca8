"""MLflow: a tracking server, or a database in the run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loguru import logger

from classifier_training.errors import ConfigError
from classifier_training.run.stored_config import flatten
from classifier_training.trackers.base import Outcome, TrackedRun, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ID_TAG = "classifier_training.run_id"
_LOSS = "train/loss_step"
_MOST_PARAMS = 100  # that MLflow takes at once
_LONGEST_PARAM = 500
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
# MLflow would otherwise retry for minutes while training waits.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowTracker(Tracker):
    """Logs to the MLflow run that carries the id of ``run.json`` as a tag.

    Args:
        tracking_uri: Server or database; null: ``$MLFLOW_TRACKING_URI``, else
            ``RUN/mlflow/mlflow.db``.
        experiment: Experiment, made when it does not exist.
        name: Shown name; null: that of the run folder.
        artifacts: Files of the run folder that are logged at the end, if they are there.

    Raises:
        ConfigError: The address holds a password, or there is neither server nor SQLAlchemy.
    """

    def __init__(
        self, tracking_uri: str | None, experiment: str, name: str | None, artifacts: list[str]
    ) -> None:
        super().__init__()
        if tracking_uri is not None and urlsplit(tracking_uri).password:
            raise ConfigError(
                "logging.mlflow.tracking_uri holds a password, and would be stored in config.yaml",
                expected="an address without user and password",
                fix="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            )
        self._uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
        if not self._uri and find_spec("sqlalchemy") is None:
            raise ConfigError(
                "logging=mlflow has no server, and a local database needs SQLAlchemy",
                expected="logging.mlflow.tracking_uri, $MLFLOW_TRACKING_URI, or all of MLflow",
                fix="pip install mlflow",
            )
        self._experiment = experiment
        self._name = name
        self._artifacts = list(artifacts)
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._last_step = -1

    def begin(self, run: TrackedRun, sent: int) -> int:
        """Find the run by its tag, or make it."""
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        folder = run.folder.path.absolute() / "mlflow"
        if not self._uri:
            folder.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(self._uri or f"sqlite:///{folder / 'mlflow.db'}")
        experiment = self._experiment_id(client, folder)
        found = client.search_runs([experiment], f"tags.`{_ID_TAG}` = '{run.run_id}'")
        if found:
            self._run_id = found[0].info.run_id
            client.update_run(self._run_id, status="RUNNING")
        else:
            tags = {_ID_TAG: run.run_id, "mlflow.runName": self._name or run.name}
            self._run_id = client.create_run(experiment, tags=tags).info.run_id
        self._client = client
        self._log_config(run.config, set(found[0].data.params) if found else set())
        logger.info("MLflow: run {} at {}", self._run_id, _without_password(self._uri) or folder)
        self._last_step = self._last(_LOSS, "step")
        return self._last("epoch", "value")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the values of a step, unless the run has that step."""
        if (step or 0) > self._last_step:
            values = {name: value for name, value in metrics.items() if name != "epoch"}
            self._log(values, step or 0)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log a row; its last metric is the epoch, which says that it is whole."""
        scores = {name: value for name, value in row.items() if name not in ("step", "epoch")}
        self._log(scores, int(row["step"]))
        self._log({"epoch": row["epoch"]}, int(row["step"]))

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Log PNG files under ``plots/NAME/step=STEP.png``."""
        if self._client is not None:
            for name, path in pictures.items():
                target = f"plots/{name}/step={step:07d}.png"
                self._client.log_image(self._run_id, _opened(path), target)

    def conclude(self, scores: Mapping[str, float], run: TrackedRun) -> None:
        """Log the final scores and the files."""
        self._log(scores, run.step)
        for name in self._artifacts:
            path = run.folder.path / name
            if self._client is not None and path.exists():
                self._client.log_artifact(self._run_id, str(path))

    def close(self, outcome: Outcome) -> None:
        """Tell the server how the run ended."""
        if self._client is not None:
            client, self._client = self._client, None
            client.set_terminated(self._run_id, _STATUS[outcome])

    def _experiment_id(self, client: MlflowClient, folder: Path) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        location = None if self._uri else (folder / "artifacts").as_uri()
        return str(client.create_experiment(self._experiment, artifact_location=location))

    def _log_config(self, config: dict[str, Any], known: set[str]) -> None:
        """Log what is not there yet: MLflow never changes a parameter."""
        from mlflow.entities import Param

        params = [
            Param(key, str(value)[:_LONGEST_PARAM])
            for key, value in flatten(config).items()
            if key and key not in known
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            assert self._client is not None
            self._client.log_batch(self._run_id, params=params[start : start + _MOST_PARAMS])

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        if self._client is not None and values:
            now = int(time.time() * 1000)
            metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
            self._client.log_batch(self._run_id, metrics=metrics)

    def _last(self, name: str, field: str) -> int:
        assert self._client is not None
        history = self._client.get_metric_history(self._run_id, name)
        return max((int(getattr(item, field)) for item in history), default=-1)


def _opened(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        return picture


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if uri else ""
