"""Training on Vertex AI: the job that is asked for, what it costs at most, and what goes wrong."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.types import CustomJob, Scheduling
from typer.testing import CliRunner, Result

from classifier_training.cli.main import app
from classifier_training.cloud import vertex
from classifier_training.cloud.secrets import resolve
from classifier_training.errors import ConfigError, DivergedError
from classifier_training.run.identity import SUBMISSION, FailedBeforeError
from classifier_training.run.reader import Run
from tests.helpers.observers import use
from tests.helpers.runs import tiny_train
from tests.helpers.vertex import FakeVertex, fake_vertex

DATA = "data.data_root=gs://bucket/numbers"
PLACE = ("--project", "p", "--image", "eu.pkg.dev/p/r/train:1", "--run", "gs://bucket/runs/first")
T4 = ("--config-name", "train_basketball_resnet18", DATA, "trainer=t4")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVertex]:
    monkeypatch.setattr(vertex, "_PAUSE_S", 0.01)
    with fake_vertex() as running:
        yield running


class _Known(AnonymousCredentials):
    """Of an account that can prove who it is, whatever the service makes of it."""

    def refresh(self, request: object) -> None:
        return


def _submit(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["submit", *PLACE, *arguments])


def _to(service: FakeVertex, *arguments: str) -> Result:
    return _submit(*T4, "--endpoint", service.url, "--every-s", "0.01", *arguments)


def _dry(*arguments: str) -> tuple[CustomJob, dict[str, Any], str]:
    done = _submit(*arguments, "--dry-run")
    assert done.exit_code == 0, done.output
    # Google's own schema; a field it does not know is an error.
    return (
        CustomJob.from_json(done.stdout, ignore_unknown_fields=False),
        json.loads(done.stdout),
        done.stderr,
    )


@pytest.mark.promise("I5")
def test_the_job_is_what_googles_schema_takes_and_the_launcher_calls() -> None:
    job, _, _ = _dry(*T4, "trainer.max_epochs=3", "--max-hours", "2")

    pool = job.job_spec.worker_pool_specs[0]
    assert pool.machine_spec.machine_type == "n1-standard-8"
    assert pool.machine_spec.accelerator_type.name == "NVIDIA_TESLA_T4"
    assert pool.machine_spec.accelerator_count == 1
    assert pool.replica_count == 1
    assert list(pool.container_spec.command) == []  # the image's own entry point
    assert list(pool.container_spec.args) == [
        "--config-name",
        "train_basketball_resnet18",
        "data.data_root=/gcs/bucket/numbers",
        "trainer=t4",
        "trainer.max_epochs=3",
        "hydra.run.dir=/gcs/bucket/runs/first",
    ]
    scheduling = job.job_spec.scheduling
    assert scheduling.strategy == Scheduling.Strategy.SPOT
    assert scheduling.restart_job_on_worker_restart
    assert not scheduling.disable_retries
    assert scheduling.timeout.total_seconds() == 7200
    assert job.job_spec.base_output_directory.output_uri_prefix == "gs://bucket/runs/first"


@pytest.mark.promise("I5")
@pytest.mark.parametrize(
    ("arguments", "machine", "gpus"),
    [
        (("trainer=l4",), "g2-standard-8", 1),
        (("trainer=a100",), "a2-highgpu-1g", 1),
        (("trainer=cpu",), "n1-standard-8", 0),
        (("trainer=ddp", "--machine", "l4", "--gpus", "4"), "g2-standard-48", 4),
        (("trainer=t4", "trainer=l4"), "g2-standard-8", 1),  # the last one is trained with
    ],
)
def test_the_preset_chooses_the_machine(
    arguments: tuple[str, ...], machine: str, gpus: int
) -> None:
    job, _, _ = _dry(DATA, *arguments, "--on-demand")

    spec = job.job_spec.worker_pool_specs[0].machine_spec
    assert (spec.machine_type, spec.accelerator_count) == (machine, gpus)
    assert job.job_spec.scheduling.strategy == Scheduling.Strategy.STANDARD


@pytest.mark.promise("I5")
@pytest.mark.parametrize(
    "key",
    [
        *("data.train_path", "data.val_path", "data.test_path", "data.split.manifest"),
        *("data.classes", "data.corrections", "model.init_from", "model.weights", "ckpt_path"),
        "task.checkpoint_path",
    ],
)
def test_every_file_in_a_bucket_is_given_as_the_job_sees_it(key: str) -> None:
    job, _, _ = _dry(*T4, f"{key}=gs://bucket/some/file")

    args = job.job_spec.worker_pool_specs[0].container_spec.args
    assert f"{key}=/gcs/bucket/some/file" in args


@pytest.mark.promise("I5")
def test_a_job_runs_as_the_account_that_is_named() -> None:
    account = "train@p.iam.gserviceaccount.com"
    assert _dry(*T4, "--service-account", account)[0].job_spec.service_account == account
    assert _dry(*T4)[0].job_spec.service_account == ""  # the project's default


@pytest.mark.promise("I5")
def test_each_submission_is_told_apart() -> None:
    """By this a run knows whether a person or the service started it again after a failure."""
    told = []
    for _ in range(2):
        pool = _dry(*T4)[0].job_spec.worker_pool_specs[0]
        told += [item.value for item in pool.container_spec.env if item.name == SUBMISSION]

    assert len(set(told)) == 2
    assert all(told)


@pytest.mark.promise("I5")
def test_money_bounds_the_time_and_the_estimate_is_held_against_it() -> None:
    job, _, said = _dry(*T4, "--usd-per-hour", "0.5", "--max-usd", "2")
    assert job.job_spec.scheduling.timeout.total_seconds() == 4 * 3600
    assert "at most 4.0 h, $2.00 at $0.50 an hour (--usd-per-hour)" in said
    assert "time: unknown" in said

    work = ("--images", "3000", "--images-per-s", "100")
    _, _, said = _dry(*T4, *work, "--usd-per-hour", "0.5")
    assert "expected: about 1.0 h, $0.50 (estimated)" in said  # 60 epochs, and half an hour around

    done = _submit(*T4, *work, "--max-usd", "0.2", "--usd-per-hour", "0.5", "--dry-run")
    assert done.exit_code == 2
    assert "expected to take 1.0 h, $0.50" in done.stderr
    assert done.stdout == ""


@pytest.mark.promise("C5")
@pytest.mark.promise("I5")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((DATA, "trainer=t4", "trainer.max_epoch=3"), "max_epochs"),
        ((DATA,), "nothing says on which machine to train"),
        ((DATA, "trainer=ddp"), "no cloud machine is known for trainer=ddp"),
        ((DATA, "trainer=l4", "--gpus", "3"), "no machine has 3 GPUs"),
        ((DATA, "trainer=t4", "--gpus", "0"), "no machine has 0 GPUs"),
        (("data.data_root=/home/me/images", "trainer=t4"), "gcloud storage cp -r /home/me/images"),
        (("trainer=t4",), "data.data_root"),
        ((DATA, "trainer=t4", "hydra.run.dir=/tmp/x"), "decided by --run"),
        ((DATA, "trainer=t4", "--run", "s3://bucket/x"), "is no folder in Cloud Storage"),
        ((DATA, "trainer=t4", "--run", "gs://bucket"), "is no folder in Cloud Storage"),
        ((DATA, "trainer=t4", "--run", "gs://bucket/../other"), "is no folder in Cloud Storage"),
        ((DATA, "trainer=t4", "--region", "us-central1-a"), "a region, not a zone"),
    ],
)
def test_what_cannot_work_is_refused_before_anybody_is_asked(
    arguments: tuple[str, ...], told: str
) -> None:
    done = _submit(*arguments)

    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.promise("S4")
def test_a_job_is_told_the_name_of_a_secret_and_never_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")
    named = "WANDB_API_KEY=projects/p/secrets/wandb"

    job, _, _ = _dry(*T4, "--secret", named)
    env = {item.name: item.value for item in job.job_spec.worker_pool_specs[0].container_spec.env}
    assert env["WANDB_API_KEY"] == "secret:projects/p/secrets/wandb/versions/latest"
    assert "0123456789abcdef0123" not in str(job)

    for arguments in (
        ("--secret", "WANDB_API_KEY=0123456789abcdef0123"),
        ("--secret", f"{named}:0123456789abcdef0123"),
        ("model.init_from=0123456789abcdef0123",),
    ):
        done = _submit(*T4, *arguments, "--dry-run")
        assert done.exit_code == 2
        assert "0123456789abcdef0123" not in done.output
        assert "projects/PROJECT/secrets/NAME" in done.stderr


class _SecretManager(BaseHTTPRequestHandler):
    """A metadata server and Secret Manager in one."""

    def do_GET(self) -> None:
        if self.path.endswith("/token"):
            fits, content = self.headers["Metadata-Flavor"] == "Google", {"access_token": "t"}
        else:
            fits = self.headers["Authorization"] == "Bearer t" and "/wandb/" in self.path
            value = base64.b64encode(b"the value").decode()
            content = {"payload": {"data": value}}  # type: ignore[dict-item]
        data = json.dumps(content).encode()
        self.send_response(200 if fits else 403)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.promise("S4")
def test_a_job_reads_its_secrets_when_it_starts() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _SecretManager)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        environment = {"WANDB_API_KEY": "secret:projects/p/secrets/wandb/versions/1", "A": "b"}
        resolve(environment, metadata=url, api=url)
        assert environment == {"WANDB_API_KEY": "the value", "A": "b"}

        refused = {"HF_TOKEN": "secret:projects/p/secrets/other/versions/latest"}
        with pytest.raises(ConfigError, match="projects/p/secrets/other") as told:
            resolve(refused, metadata=url, api=url)
        assert "secretAccessor" in told.value.fix
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.promise("S4")
def test_training_reads_the_secrets_it_was_told_the_names_of(tmp_path: Path) -> None:
    """Before anything else; on a machine that is not Google's it says what it lacks."""
    told = {
        "WANDB_API_KEY": "secret:projects/p/secrets/wandb/versions/1",
        "GCE_METADATA_HOST": "127.0.0.1:9",
    }
    command = ["train", "data.data_root=/nowhere", f"hydra.run.dir={tmp_path / 'run'}"]

    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.cli", *command],
        check=False, capture_output=True, text=True, timeout=60, env=os.environ | told,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert "the secret projects/p/secrets/wandb/versions/1 cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.promise("I5")
def test_a_job_is_submitted_once_and_watched_through_a_preemption(service: FakeVertex) -> None:
    service.states = [
        *("JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_PENDING"),
        *("JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"),
    ]

    done = _to(service, "--wait")

    assert done.exit_code == 0, done.output
    name = "projects/p/locations/us-central1/customJobs/1"
    assert list(service.jobs) == [name]
    lines = done.stdout.splitlines()
    assert lines[0] == f"{name} submitted; its run folder is gs://bucket/runs/first"
    assert lines[1:6] == [
        "pending",
        "running",
        "pending (preempted; it will go on)",
        "running",
        "succeeded",
    ]
    assert "gcloud storage cp -r gs://bucket/runs/first" in lines[6]


@pytest.mark.promise("I5")
@pytest.mark.parametrize("state", ["QUEUED", "PENDING", "RUNNING"])
def test_a_run_folder_has_one_job_at_a_time(service: FakeVertex, state: str) -> None:
    assert _to(service).exit_code == 0
    for job in service.jobs.values():
        job["state"] = f"JOB_STATE_{state}"
    again = _to(service, "--run", "gs://bucket/runs/first/")  # the same folder
    assert again.exit_code == 0
    assert "works in gs://bucket/runs/first/ already" in again.stdout
    assert len(service.jobs) == 1

    for job in service.jobs.values():
        job["state"] = "JOB_STATE_FAILED"
    assert _to(service).exit_code == 0
    assert len(service.jobs) == 2


@pytest.mark.promise("I5")
@pytest.mark.parametrize("drops", [False, True])
def test_a_lost_answer_makes_no_second_job(service: FakeVertex, drops: bool) -> None:
    service.loses, service.drops = 1, drops

    done = _to(service)

    assert done.exit_code == 0, done.output
    assert len(service.jobs) == 1


@pytest.mark.promise("I5")
def test_a_service_that_is_away_for_a_moment_is_asked_again(service: FakeVertex) -> None:
    service.refusals = [503, 429]

    assert _to(service).exit_code == 0
    assert len(service.jobs) == 1


@pytest.mark.promise("I5")
@pytest.mark.parametrize(
    ("code", "exit_code", "told"),
    [
        (401, 2, "gcloud auth application-default login"),
        (403, 2, "roles/aiplatform.user"),
        (404, 2, "gcloud services enable"),
        (400, 2, "--dry-run shows the job"),
        (429, 1, "another --region"),
        (503, 1, "cannot be reached"),
    ],
)
def test_each_refusal_says_what_to_do(
    service: FakeVertex, code: int, exit_code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vertex, "_nobody", _Known)
    service.refusals = [code] * 10

    done = _to(service)

    assert done.exit_code == exit_code, done.output
    assert told in done.stderr
    assert f"told {code}" in done.stderr
    assert "Traceback" not in done.output
    assert not service.jobs


@pytest.mark.promise("I5")
def test_without_credentials_or_googles_client_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    done = _submit(*T4)
    assert done.exit_code == 2, done.output
    assert "gcloud auth application-default login" in done.stderr

    # What Python has for a package that is not there.
    monkeypatch.delitem(sys.modules, "google.cloud.aiplatform_v1")
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    done = _submit(*T4)
    assert done.exit_code == 2, done.output
    assert "pip install 'classifier-training[gcp]'" in done.stderr
    assert _submit(*T4, "--dry-run").exit_code == 0


@pytest.mark.promise("I5")
def test_watching_outlasts_a_service_that_is_away_for_a_while(service: FakeVertex) -> None:
    service.states = [
        *(503, 503, 503, "JOB_STATE_RUNNING"),
        *(503, 503, 503, "JOB_STATE_SUCCEEDED"),
    ]

    done = _to(service, "--wait")

    assert done.exit_code == 0, done.output
    assert done.stdout.count("the service does not answer, asking again") == 6

    service.states = [503]
    done = _to(service, "--wait", "--run", "gs://bucket/runs/second")
    assert done.exit_code == 1
    assert "cannot be reached" in done.stderr
    assert "a job that was made is found" in done.stderr


@pytest.mark.promise("I5")
@pytest.mark.parametrize("state", ["EXPIRED", "CANCELLED", "PARTIALLY_SUCCEEDED"])
def test_a_job_that_was_stopped_is_over_and_has_not_succeeded(
    service: FakeVertex, state: str
) -> None:
    # Who goes on asking after the last state is told that there is no such job.
    service.states = ["JOB_STATE_RUNNING", f"JOB_STATE_{state}", 404]

    done = _to(service, "--wait")

    assert done.exit_code == 1, done.output
    assert f"ended as {state.lower()}" in done.stderr
    assert "the same command goes on in gs://bucket/runs/first" in done.stderr


@pytest.mark.promise("I5")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        ((8, "resources are insufficient in us-central1"), "another --region"),
        ((3, "the replica exited with status 3"), "stream-logs"),
    ],
)
def test_a_job_that_fails_is_told_by_its_cause(
    service: FakeVertex, error: tuple[int, str], told: str
) -> None:
    service.states, service.error = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"], error

    done = _to(service, "--wait")

    assert done.exit_code == 1
    assert error[1] in done.stderr
    assert told in done.stderr


@pytest.mark.promise("I5")
@pytest.mark.promise("R3")
def test_a_failed_job_that_is_started_again_ends_at_once_with_the_same_code(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service may start again what failed; only a preempted run may go on by itself."""
    monkeypatch.setenv(SUBMISSION, "one")
    fails = use("Poison", epoch=0, batch=2)
    command = (folder_data, tmp_path / "run", *fails)
    with pytest.raises(DivergedError) as first:
        tiny_train(*command)

    with pytest.raises(FailedBeforeError) as second:
        tiny_train(*command)

    assert second.value.exit_code == first.value.exit_code == 4
    assert first.value.what[:80] in second.value.what
    monkeypatch.setenv(SUBMISSION, "two")
    with pytest.raises(DivergedError):  # a person submitted it again
        tiny_train(*command)
    assert Run(tmp_path / "run").record["status"] == "failed"
    monkeypatch.delenv(SUBMISSION)
    for _ in range(2):  # nor is it refused where no service starts anything
        with pytest.raises(DivergedError):
            tiny_train(*command)


@pytest.mark.promise("I5")
def test_a_service_that_cannot_be_reached_is_no_fault_of_the_disk() -> None:
    done = _submit(*T4, "--endpoint", "http://127.0.0.1:9", "--every-s", "0.01")

    assert done.exit_code == 1
    assert "Vertex AI in us-central1 cannot be reached" in done.stderr
    assert "disk" not in done.stderr


@pytest.mark.promise("I5")
def test_a_job_that_is_being_cancelled_still_has_its_folder(service: FakeVertex) -> None:
    assert _to(service).exit_code == 0
    for job in service.jobs.values():
        job["state"] = "JOB_STATE_CANCELLING"

    assert "already (cancelling)" in _to(service).stdout
    assert len(service.jobs) == 1


@pytest.mark.promise("I5")
def test_every_path_of_the_data_is_looked_at() -> None:
    done = _submit(*T4, "data.train_path=/home/me/train", "--dry-run")

    assert done.exit_code == 2
    assert "data.train_path=/home/me/train is a path of this machine" in done.stderr
