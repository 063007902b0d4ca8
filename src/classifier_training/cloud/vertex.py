"""Custom jobs of Vertex AI through Google's own client: create, find, watch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.aiplatform_v1.services.job_service import JobServiceClient
from google.cloud.aiplatform_v1.services.job_service.transports.rest import JobServiceRestTransport
from google.cloud.aiplatform_v1.types import CustomJob, JobState

from classifier_training.cloud.job import RUN_LABEL, Place
from classifier_training.errors import ClassifierTrainingError, ConfigError

_TRIES = 4
# Before the second try; doubled before each further one.
_PAUSE_S = 2.0
_TERMINAL = (
    JobState.JOB_STATE_SUCCEEDED,
    JobState.JOB_STATE_FAILED,
    JobState.JOB_STATE_CANCELLED,
    JobState.JOB_STATE_EXPIRED,
    JobState.JOB_STATE_PARTIALLY_SUCCEEDED,
)
# google.rpc.Code.RESOURCE_EXHAUSTED
_EXHAUSTED = 8
_NO_MACHINES = (
    "machines of that kind that are free now",
    "another --region, another machine (trainer=l4), --on-demand, or later; the run folder goes on",
)


class CloudError(ClassifierTrainingError):
    """The cloud did not do what it was asked."""


@dataclass(frozen=True)
class Job:
    """A job as the service describes it.

    Attributes:
        name: ``projects/P/locations/R/customJobs/ID``.
        state: For example ``running``.
        error: Why it failed; empty otherwise.
        is_over: Whether its state is its last.
        lacks_machines: Whether it failed because there were none.
    """

    name: str
    state: str
    error: str
    is_over: bool
    lacks_machines: bool


def connect(region: str, endpoint: str | None) -> JobServiceClient:
    """Return a client with the credentials of the environment.

    Args:
        region: Whose service is asked.
        endpoint: Another address, ``https://HOST`` as of a private connection, or ``http://HOST``
            for one without credentials.

    Raises:
        ConfigError: There are no credentials.
    """
    parts = urlsplit(endpoint or f"https://{region}-aiplatform.googleapis.com")
    try:
        transport = JobServiceRestTransport(
            host=parts.netloc,
            url_scheme=parts.scheme,
            credentials=_nobody() if parts.scheme == "http" else None,
        )
    except GoogleAuthError as error:
        raise _no_credentials(error) from error
    return JobServiceClient(transport=transport)


def _nobody() -> AnonymousCredentials:
    return AnonymousCredentials()  # type: ignore[no-untyped-call]


def running_job(client: JobServiceClient, place: Place) -> Job | None:
    """Return the job that works in the same run folder, if there is one.

    Raises:
        ClassifierTrainingError: The service refused, or cannot be reached.
    """
    with _told(place):
        found = client.list_custom_jobs(
            request={"parent": place.parent, "filter": f"labels.{RUN_LABEL}={place.label}"}
        )
        return next((_job(job) for job in found if job.state not in _TERMINAL), None)


def create(client: JobServiceClient, place: Place, spec: dict[str, Any]) -> Job:
    """Submit a job, once.

    After an answer that was lost, it is looked for before it is asked for again.

    Args:
        client: See :func:`connect`.
        place: Where.
        spec: See :func:`cloud.job.job_spec`.

    Raises:
        ClassifierTrainingError: The service refused, or cannot be reached.
    """
    job = CustomJob.from_json(json.dumps(spec), ignore_unknown_fields=False)
    with _told(place):
        for number in range(_TRIES):
            try:
                return _job(client.create_custom_job(parent=place.parent, custom_job=job))
            except (exceptions.ServerError, exceptions.TooManyRequests, OSError) as error:
                if number == _TRIES - 1:
                    raise
                lost = not isinstance(error, exceptions.TooManyRequests)
                time.sleep(_PAUSE_S * 2**number)
                if lost and (before := running_job(client, place)) is not None:
                    return before
    raise AssertionError("unreachable")


def watch(
    client: JobServiceClient,
    place: Place,
    name: str,
    *,
    every_s: float,
    tell: Callable[[str], None],
) -> Job:
    """Wait for the end of a job, and tell each change.

    A service that is away for a while is asked again.
    """
    before, away = "", 0
    while True:
        try:
            with _told(place):
                job = _job(client.get_custom_job(name=name))
            away = 0
        except CloudError as error:
            away += 1
            if away > _TRIES:
                raise
            tell(f"the service does not answer, asking again: {error.what}")
            time.sleep(every_s)
            continue
        if job.state != before:
            again = before == "running" and job.state in ("pending", "queued")
            tell(f"{job.state}{' (preempted; it will go on)' if again else ''}")
            before = job.state
        if job.is_over:
            return job
        time.sleep(every_s)


def failed(job: Job, place: Place) -> ClassifierTrainingError:
    """Return what to tell of a job that did not succeed."""
    if job.lacks_machines:
        expected, fix = _NO_MACHINES
        return CloudError(f"{job.name}: {job.error}", expected=expected, fix=fix)
    return CloudError(
        f"{job.name} ended as {job.state}: {job.error or 'no reason is given'}",
        expected="a job that trains to its end",
        fix=f"its log says why: gcloud ai custom-jobs stream-logs {job.name.rpartition('/')[2]} "
        f"--region {place.region}; fixed, the same command goes on in {place.run_uri}",
    )


def _job(job: CustomJob) -> Job:
    state = JobState(job.state)
    message = str(job.error.message) if job.error else ""
    short = state.name.removeprefix("JOB_STATE_").lower()
    lacks = bool(job.error) and int(job.error.code) == _EXHAUSTED
    return Job(str(job.name), short, message, state in _TERMINAL, lacks)


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except exceptions.Forbidden as error:
        raise ConfigError(
            f"no permission in {place.parent}: {error.message}",
            expected="the role roles/aiplatform.user, and for --service-account also "
            "roles/iam.serviceAccountUser on it",
            fix="have the role granted, or choose another --project",
        ) from error
    except exceptions.Unauthorized as error:
        raise _no_credentials(error) from error
    except exceptions.NotFound as error:
        raise ConfigError(
            f"{place.parent} is not there: {error.message}",
            expected="a project with the Vertex AI interface switched on",
            fix="correct --project and --region, or: gcloud services enable "
            "aiplatform.googleapis.com",
        ) from error
    except exceptions.BadRequest as error:
        raise ConfigError(
            f"Vertex AI refuses the job: {error.message}",
            expected="a machine that --region has, an image it can pull",
            fix="another --region or machine; look at --image (gcloud artifacts docker images "
            "describe IMAGE). --dry-run shows the job",
        ) from error
    except exceptions.TooManyRequests as error:
        raise CloudError(
            f"no machine or quota in {place.region}: {error.message}",
            expected=_NO_MACHINES[0],
            fix=f"{_NO_MACHINES[1]}; quotas: console, IAM, Quotas, custom training",
        ) from error
    except GoogleAuthError as error:
        raise _no_credentials(error) from error
    except (exceptions.GoogleAPICallError, OSError) as error:  # OSError: also that of requests
        raise CloudError(
            f"Vertex AI in {place.region} cannot be reached: {error}",
            expected="an answer",
            fix="run the same command again; a job that was made is found, not made twice",
        ) from error


def _no_credentials(error: Exception) -> ConfigError:
    return ConfigError(
        f"Google Cloud does not know who asks: {error}",
        expected="credentials of an account that may start jobs",
        fix="gcloud auth application-default login",
    )
