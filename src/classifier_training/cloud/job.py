"""A Vertex AI custom job as its REST interface takes it, from a training command.

The job runs the same command as a person would type, with the run folder on the mount under
``/gcs``: a job that is started again finds its run there and goes on with it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from classifier_training.cloud.budget import Budget
from classifier_training.cloud.machines import Machine
from classifier_training.cloud.secrets import REFERENCE, check_reference
from classifier_training.errors import ConfigError
from classifier_training.run.identity import SUBMISSION

RUN_LABEL = "classifier-training-run"
# Keys that name a file or folder which training reads: of the data, and what may lie in the image.
_DATA_KEYS = (
    *("data.data_root", "data.train_path", "data.val_path", "data.test_path"),
    *("data.split.manifest", "data.classes", "data.corrections"),
)
_PATH_KEYS = (
    *_DATA_KEYS,
    *("model.init_from", "model.weights", "ckpt_path", "task.checkpoint_path"),
)
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Place:
    """Where a job runs, as whom, and where its run folder is.

    Attributes:
        project: Google Cloud project.
        region: For example ``us-central1``.
        image: URI of the training image.
        run_uri: ``gs://BUCKET/PATH``: the run folder.
        service_account: E-mail of the account that it runs as; None: the project's default.
    """

    project: str
    region: str
    image: str
    run_uri: str
    service_account: str | None

    def __post_init__(self) -> None:
        if not _REGION.fullmatch(self.region):
            raise ConfigError(
                f"--region {self.region!r} is no region",
                expected="a region, not a zone, for example us-central1",
                fix="correct it",
            )
        mounted(self.run_uri, "--run")

    @property
    def label(self) -> str:
        """What tells jobs of one run folder from those of others; fit for a label."""
        return hashlib.sha256(self.run_uri.rstrip("/").encode()).hexdigest()[:32]

    @property
    def parent(self) -> str:
        """The resource that jobs belong to."""
        return f"projects/{self.project}/locations/{self.region}"


def job_spec(
    place: Place,
    machine: Machine,
    bounds: Budget,
    *,
    root: str,
    overrides: list[str],
    secrets: dict[str, str],
    is_spot: bool,
    submission: str,
) -> dict[str, Any]:
    """Return the ``CustomJob`` as JSON values.

    A machine that is preempted or under maintenance is replaced and the job started again
    (``restartJobOnWorkerRestart``; it takes hold only while ``disableRetries`` is off). Vertex AI
    may also start a container again that exited with an error; ``SUBMISSION`` lets it end at once
    with the same code (``artifacts.restarts``), so that only preemption repeats work.

    Args:
        place: Where it runs.
        machine: On what.
        bounds: How long.
        root: Root configuration.
        overrides: As typed; ``gs://`` paths become those of the mount.
        secrets: Names of secrets by the environment variable that will hold them.
        is_spot: Whether it runs on spare machines.
        submission: Identifies this submission.

    Raises:
        ConfigError: An override or secret does not fit a job.
    """
    name = place.run_uri.rstrip("/").rpartition("/")[2]
    machine_spec: dict[str, Any] = {"machineType": machine.machine_type}
    if machine.accelerator_type is not None:
        machine_spec |= {
            "acceleratorType": machine.accelerator_type,
            "acceleratorCount": machine.accelerator_count,
        }
    pool = {
        "machineSpec": machine_spec,
        "replicaCount": "1",
        "diskSpec": {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 100},
        "containerSpec": {
            "imageUri": place.image,
            "args": arguments(place, root=root, overrides=overrides),
            "env": [
                {"name": SUBMISSION, "value": submission},
                *(_secret(variable, secret) for variable, secret in sorted(secrets.items())),
            ],
        },
    }
    spec: dict[str, Any] = {
        "workerPoolSpecs": [pool],
        "scheduling": {
            "timeout": f"{round(bounds.hours * 3600)}s",
            "strategy": "SPOT" if is_spot else "STANDARD",
            "restartJobOnWorkerRestart": True,
            "disableRetries": False,
        },
        "baseOutputDirectory": {"outputUriPrefix": place.run_uri},
    }
    if place.service_account is not None:
        spec["serviceAccount"] = place.service_account
    return {
        "displayName": f"classifier-training {name}"[:128],
        "labels": {RUN_LABEL: place.label},
        "jobSpec": spec,
    }


def arguments(place: Place, *, root: str, overrides: list[str]) -> list[str]:
    """Return what the image's entry point (``task_manager``) is given.

    Raises:
        ConfigError: The data is nowhere, or on this machine.
    """
    if not any(text.lstrip("+").startswith("data.data_root=") for text in overrides):
        raise ConfigError(
            "nothing says where the data lies",
            expected="a folder in Cloud Storage, which the job sees under /gcs",
            fix="data.data_root=gs://BUCKET/PATH",
        )
    moved = [_moved(text) for text in overrides]
    return ["--config-name", root, *moved, f"hydra.run.dir={mounted(place.run_uri, '--run')}"]


def mounted(uri: str, what: str) -> str:
    """Return where Vertex AI mounts an object's path.

    Raises:
        ConfigError: It is no ``gs://`` URI with a path.
    """
    bucket, slash, path = uri.removeprefix("gs://").rstrip("/").partition("/")
    if not uri.startswith("gs://") or not bucket or not slash or not path or ".." in path:
        raise ConfigError(
            f"{what} {uri!r} is no folder in Cloud Storage",
            expected="gs://BUCKET/PATH",
            fix="correct it",
        )
    return f"/gcs/{bucket}/{path}"


def _moved(override: str) -> str:
    key, equals, value = override.partition("=")
    plain = key.lstrip("+")
    if not equals or not value:
        return override
    if plain.startswith("hydra."):
        raise ConfigError(
            f"{override} is decided by --run",
            expected="the run folder as --run gs://BUCKET/PATH",
            fix=f"remove {key}",
        )
    if plain in _PATH_KEYS and value.startswith("gs://"):
        return f"{key}={mounted(value, plain)}"
    is_path = plain == "data.data_root" or value.startswith(("/", "~"))
    if plain in _DATA_KEYS and is_path and not value.startswith("/gcs/"):
        raise ConfigError(
            f"{override} is a path of this machine",
            expected="data in Cloud Storage, which the job sees under /gcs",
            fix=f"copy it (gcloud storage cp -r {value} gs://BUCKET/PATH) and give "
            f"{plain}=gs://BUCKET/PATH",
        )
    return override


def _secret(variable: str, secret: str) -> dict[str, str]:
    if not _ENV_NAME.fullmatch(variable):
        raise ConfigError(
            f"--secret {variable}=... names no environment variable",
            expected="--secret WANDB_API_KEY=projects/PROJECT/secrets/NAME",
            fix="correct it",
        )
    return {"name": variable, "value": f"{REFERENCE}{check_reference(variable, secret)}"}
