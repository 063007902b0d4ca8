"""``classifier submit``: the training that ``classifier train`` would do, as a Vertex AI job."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.cloud.budget import Budget, Workload, budget
from classifier_training.cloud.job import Place, job_spec
from classifier_training.cloud.machines import Machine, machine_for
from classifier_training.config.secrets import holds_secret
from classifier_training.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from classifier_training.config.schema import Config


@dataclass(frozen=True)
class SubmitOptions:
    """What is asked for besides the training's configuration; see the help of the command."""

    project: str
    region: str
    image: str
    run: str
    service_account: str | None
    machine: str | None
    gpus: int | None
    secrets: list[str]
    is_spot: bool
    max_hours: float
    max_usd: float | None
    usd_per_hour: float | None
    images: int | None
    images_per_s: float | None
    dry_run: bool
    wait: bool
    every_s: float
    endpoint: str | None

    @property
    def place(self) -> Place:
        """Where it runs.

        Raises:
            ConfigError: The region or the run folder is none.
        """
        return Place(self.project, self.region, self.image, self.run, self.service_account)


def run_submit(
    overrides: list[str],
    *,
    root: str,
    options: SubmitOptions,
    debug: bool,
) -> int:
    """Check, bound and submit; return the exit code.

    Args:
        overrides: As for ``train``, with ``gs://`` paths.
        root: Root YAML.
        options: Where, on what, how long.
        debug: Show tracebacks.
    """
    set_up_logging(debug=debug)

    def task() -> int:
        if find_spec("pydantic") is None or find_spec("hydra") is None:
            raise need_extra("hydra", "train")
        name = root.removesuffix(".yaml")
        _refuse_secrets(overrides)
        spec, bounds = _plan(overrides, name, options)
        for line in bounds.lines():
            sys.stderr.write(f"{line}\n")
        if options.dry_run:
            sys.stdout.write(json.dumps(spec, indent=2) + "\n")
            return EXIT_OK
        if not _has_client():
            raise need_extra("google-cloud-aiplatform", "gcp")
        return _submit(spec, options)

    return guarded(task, debug=debug)


def _has_client() -> bool:
    """Whether Google's client is installed; without its parents, looking for it raises."""
    try:
        return find_spec("google.cloud.aiplatform_v1") is not None
    except ModuleNotFoundError:
        return False


def _plan(overrides: list[str], root: str, options: SubmitOptions) -> tuple[dict[str, Any], Budget]:
    config = _validated(overrides, root)
    machine = _machine(overrides, options)
    workload = Workload(config.trainer.max_epochs, options.images, options.images_per_s)
    bounds = budget(
        machine,
        workload,
        max_hours=options.max_hours,
        max_usd=options.max_usd,
        usd_per_hour=options.usd_per_hour,
    )
    spec = job_spec(
        options.place,
        machine,
        bounds,
        root=root,
        overrides=overrides,
        secrets=_named_secrets(options.secrets),
        is_spot=options.is_spot,
        submission=uuid.uuid4().hex,
    )
    return spec, bounds


def _validated(overrides: list[str], root: str) -> Config:
    """Compose and check the configuration as the job will."""
    from classifier_training.config.compose import allowed_modules, compose_config, make_strict
    from classifier_training.config.validate import validate

    composed = compose_config(make_strict(overrides), root=root)
    return validate(composed, allow_modules=allowed_modules(overrides))


def _machine(overrides: list[str], options: SubmitOptions) -> Machine:
    chosen = [
        text.partition("=")[2] for text in overrides if text.lstrip("+").startswith("trainer=")
    ]
    preset = options.machine or (chosen[-1] if chosen else None)
    return machine_for(preset, options.gpus)


def _named_secrets(given: list[str]) -> dict[str, str]:
    named = {}
    for text in given:
        variable, equals, secret = text.partition("=")
        if not equals:
            raise ConfigError(
                "--secret names a variable but no secret",
                expected="--secret WANDB_API_KEY=projects/PROJECT/secrets/NAME",
                fix="correct it",
            )
        named[variable] = secret
    return named


def _refuse_secrets(overrides: list[str]) -> None:
    """A job's arguments are read by everyone who may look at jobs."""
    for text in overrides:
        if (variable := holds_secret(text)) is not None:
            raise ConfigError(
                f"the override of {text.partition('=')[0]} holds the value of ${variable}",
                expected="no secret in the arguments of a job",
                fix=f"--secret {variable}=projects/PROJECT/secrets/NAME",
            )


def _submit(spec: dict[str, Any], options: SubmitOptions) -> int:
    from classifier_training.cloud.vertex import connect, create, failed, running_job, watch

    place = options.place
    client = connect(place.region, options.endpoint)
    job = running_job(client, place)
    if job is not None:
        sys.stdout.write(f"{job.name} works in {place.run_uri} already ({job.state})\n")
    else:
        job = create(client, place, spec)
        sys.stdout.write(f"{job.name} submitted; its run folder is {place.run_uri}\n")
    if not options.wait:
        number = job.name.rpartition("/")[2]
        sys.stdout.write(
            f"watch it: gcloud ai custom-jobs stream-logs {number} --region {place.region}\n"
        )
        return EXIT_OK
    ended = watch(client, place, job.name, every_s=options.every_s, tell=_tell)
    if ended.state != "succeeded":
        raise failed(ended, place)
    sys.stdout.write(f"finished; fetch it: gcloud storage cp -r {place.run_uri} .\n")
    return EXIT_OK


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
