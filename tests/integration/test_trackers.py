"""Trackers hold the numbers of ``metrics.csv``, follow a run that was cut, and never stop it."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from classifier_training.cli.train import train as train_command
from classifier_training.errors import EXIT_CONFIG, ConfigError, InterruptedRunError
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import read_history
from classifier_training.run.reader import Run
from tests.helpers.checkpoints import differences, read
from tests.helpers.config import config_of
from tests.helpers.observers import use
from tests.helpers.runs import TINY, tiny_train
from tests.helpers.trackers import (
    MODULE,
    Fails,
    Plain,
    tensorboard,
    use_draws,
    use_logger,
    wandb_files,
    wandb_history,
    wandb_run,
    wandb_summary,
)
from tests.helpers.training import train_only

FAKE_KEY = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4"
STEPS = "trainer.log_every_n_steps=2"
KEYS = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI", "NETRC")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user without keys, and without a network that could be reached by mistake."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in KEYS:
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Whatever is logged, a text a message."""
    lines: list[str] = []
    sink = logger.add(
        lambda message: lines.append(str(message)), format="{level}|{message}", diagnose=False
    )
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="module")
def tracked(folder_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run with three loggers and pictures."""
    out = tmp_path_factory.mktemp("tracked") / "run"
    return tiny_train(folder_data, out, "logging=[csv,tensorboard,wandb]", STEPS, *use_draws())


def steps(run: Path) -> list[dict[str, str]]:
    with (run / "logs" / "steps.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.promise("R12")
def test_wandb_holds_the_rows_of_metrics_csv(tracked: Run) -> None:
    (file,) = wandb_files(tracked.folder.path)
    history = wandb_history(file)

    rows = read_history(tracked.folder.history)
    assert [row["step"] for row in rows] == [6, 12]
    for row in rows:
        found = {key: value for key, value in history[int(row["step"])].items() if key[0] != "_"}
        pictures = {
            key.removesuffix(".path"): file.parent / "files" / value
            for key, value in found.items()
            if key.endswith(".path")
        }
        assert {key: value for key, value in found.items() if "." not in key} == {
            key: value for key, value in row.items() if key != "step"
        }
        # That of the whole run is drawn anew each epoch.
        assert sorted(pictures) == ["confusion_matrix", "history", "samples"]
        for name in ("confusion_matrix", "samples"):
            drawn = tracked.folder.plots / name / f"epoch={int(row['epoch']):04d}.png"
            assert pictures[name].read_bytes() == drawn.read_bytes()
    assert wandb_run(file).run_id == tracked.record["id"]
    summary = wandb_summary(file)
    assert summary["test/f1_macro"] == tracked.metrics("test")["metrics"]["f1_macro"]["value"]
    assert summary["best/f1_macro"] == tracked.best_score


@pytest.mark.promise("R12")
def test_wandb_is_told_the_configuration(tracked: Run) -> None:
    message = wandb_run(wandb_files(tracked.folder.path)[0])

    config = {item.key: item.value_json for item in message.config.update}
    assert '"learning_rate":0.01' in config["optimizer"].replace(" ", "")
    assert message.project == "classifier-training"
    assert message.display_name == "run"


@pytest.mark.promise("C8")
def test_wandb_writes_into_the_run_folder_only(tracked: Run, home: Path) -> None:
    assert [path for path in home.rglob("*") if "wandb" in path.name.lower()] == []


@pytest.mark.promise("R12")
def test_tensorboard_holds_the_rows_of_metrics_csv(tracked: Run) -> None:
    found = tensorboard(tracked.folder.path)

    rows = read_history(tracked.folder.history)
    for name in rows[0].keys() - {"step", "epoch"}:
        events = found.Scalars(name)
        assert [event.step for event in events] == [6, 12]
        # TensorBoard holds float32.
        wanted = [row[name] for row in rows]
        assert [event.value for event in events] == pytest.approx(wanted, rel=1e-6)
    for name in ("confusion_matrix", "samples"):
        for event, row in zip(found.Images(name), rows, strict=True):
            drawn = tracked.folder.plots / name / f"epoch={int(row['epoch']):04d}.png"
            assert event.step == row["step"]
            assert event.encoded_image_string == drawn.read_bytes()
    assert [event.step for event in found.Images("history")] == [6, 12]
    (best,) = found.Scalars("best/f1_macro")
    assert best.value == pytest.approx(tracked.best_score)
    hparams = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optimizer.learning_rate" in hparams


@pytest.mark.promise("R12")
def test_steps_csv_holds_the_steps(tracked: Run) -> None:
    every = steps(tracked.folder.path)
    lines = [line for line in every if line["name"] == "train/loss_step"]

    assert {line["step"] for line in every} == {line["step"] for line in lines}
    assert [(line["step"], line["epoch"]) for line in lines] == [
        ("1", "0"), ("3", "0"), ("5", "0"), ("7", "1"), ("9", "1"), ("11", "1"),
    ]  # fmt: skip
    history = wandb_history(wandb_files(tracked.folder.path)[0])
    for line in lines:
        assert float(line["value"]) == history[int(line["step"])]["train/loss_step"]


@pytest.fixture(scope="module")
def whole_and_cut(
    folder_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, RunFolder]:
    """A run of three epochs, and the same killed in its second epoch (SIGKILL) and gone on with."""
    top = tmp_path_factory.mktemp("cut")
    # Times are not the same in two equal runs.
    untimed = "callbacks.throughput=null"
    given = ("logging=[csv,tensorboard]", STEPS, "trainer.max_epochs=3", untimed, *use_draws())
    whole = train_only(folder_data, top / "whole", *given)
    kill = use(
        "Kill",
        hook="batch_end",
        epoch=1,
        batch=4,
        marker=top / "killed",
        number=int(signal.SIGKILL),
    )
    modules = f"allow_modules=[{MODULE},tests.helpers.observers]"
    child = os.fork()
    if child == 0:
        train_only(folder_data, top / "cut", *given, *kill, modules)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    before = [int(line["step"]) for line in steps(top / "cut")]
    assert max(before) > 6, "it had logged steps that come again"
    with (top / "cut" / "logs" / "steps.csv").open("a") as file:
        file.write("11,1,train/lo")  # as a kill in the middle of a write leaves it
    return whole, train_only(folder_data, top / "cut", *given, *kill, modules)


@pytest.mark.promise("R12")
def test_after_a_kill_no_step_stands_twice_or_is_lost(
    whole_and_cut: tuple[RunFolder, RunFolder],
) -> None:
    whole, cut = whole_and_cut

    assert (cut.path / "logs/steps.csv").read_text() == (whole.path / "logs/steps.csv").read_text()


@pytest.mark.promise("R12")
def test_after_a_kill_tensorboard_goes_on_without_going_back(
    whole_and_cut: tuple[RunFolder, RunFolder],
) -> None:
    whole, cut = (tensorboard(folder.path) for folder in whole_and_cut)

    assert len(list((whole_and_cut[1].path / "tensorboard").glob("events.*"))) == 2
    for name in whole.Tags()["scalars"]:
        assert [(event.step, event.value) for event in cut.Scalars(name)] == [
            (event.step, event.value) for event in whole.Scalars(name)
        ]
    for name in ("confusion_matrix", "samples", "history"):
        assert [event.step for event in cut.Images(name)] == [6, 12, 18]


@pytest.mark.promise("R12")
def test_a_run_that_goes_on_is_the_same_wandb_run_and_holds_all_epochs(
    folder_data: Path, tmp_path: Path
) -> None:
    given = ("logging=wandb", "trainer.max_epochs=3", STEPS)
    kill = use("Kill", hook="batch_end", epoch=1, batch=2, marker=tmp_path / "killed")
    with pytest.raises(InterruptedRunError):
        tiny_train(folder_data, tmp_path / "run", *given, *kill)

    run = tiny_train(folder_data, tmp_path / "run", *given, *kill)

    first, second = wandb_files(run.folder.path)
    assert wandb_run(first).run_id == wandb_run(second).run_id == run.record["id"]
    history = wandb_history(second)
    for row in read_history(run.folder.history):
        found = history[int(row["step"])]
        assert {name: found[name] for name in row if name != "step"} == {
            name: value for name, value in row.items() if name != "step"
        }


@pytest.mark.promise("R12")
def test_a_logger_that_is_added_later_gets_all_epochs_once(
    folder_data: Path, tmp_path: Path
) -> None:
    kill = use("Kill", hook="batch_end", epoch=2, batch=2, marker=tmp_path / "killed")
    given = ("trainer.max_epochs=3", *kill)
    modules = f"allow_modules=[{MODULE},tests.helpers.observers]"
    with pytest.raises(InterruptedRunError):
        train_only(folder_data, tmp_path / "run", *given)

    folder = train_only(folder_data, tmp_path / "run", *given, *use_logger("Plain"), modules)

    rows = read_history(folder.history)
    sent = [(step, row) for step, row in Plain.rows if "val/loss" in row]
    assert sent == [
        (row["step"], {name: value for name, value in row.items() if name != "step"})
        for row in rows
    ]
    assert [row["epoch"] for row in rows] == [0, 1, 2]


METHODS = ["begin", "log_metrics", "log_epoch", "log_pictures", "save", "finalize", "experiment"]


@pytest.mark.promise("R6")
@pytest.mark.parametrize("method", METHODS)
def test_a_logger_that_fails_changes_nothing_and_is_off(
    method: str, folder_data: Path, tmp_path: Path, log: list[str]
) -> None:
    plain = train_only(folder_data, tmp_path / "plain", STEPS, *use_draws())
    given = (*use_draws(), *use_logger("Fails", method=method))
    log.clear()

    disturbed = train_only(folder_data, tmp_path / "disturbed", STEPS, *given)

    assert differences(read(plain.last)["state_dict"], read(disturbed.last)["state_dict"]) == []
    assert plain.history.read_text() == disturbed.history.read_text()
    said = [line for line in log if "is off" in line.partition("\n")[0]]
    assert [line.partition(" (")[0] for line in said] == [
        f"ERROR|logging.Fails failed in {method} and is off for the rest of this run; "
        "training goes on"
    ]
    assert "the server has vanished" in said[0]
    assert Fails.last.calls.count(method) == 1
    assert Fails.last.calls[-1] == method, "nothing after it"


@pytest.mark.promise("R6")
@pytest.mark.parametrize("method", ["conclude", "close"])
def test_a_logger_that_fails_at_the_end_leaves_a_finished_run(
    method: str, folder_data: Path, tmp_path: Path
) -> None:
    run = tiny_train(folder_data, tmp_path / "run", *use_logger("Fails", method=method))

    assert run.record["status"] == "finished"
    assert run.folder.onnx.exists()
    assert Fails.last.calls[-1] == "close", "let go in any case"
    assert f"logging.Fails failed in {method}" in run.folder.log.read_text()


@pytest.mark.promise("R6")
def test_a_server_that_does_not_answer_is_given_up_soon(
    folder_data: Path, tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        started = time.monotonic()
        folder = train_only(folder_data, tmp_path / "run", "logging=mlflow")

    assert len(read_history(folder.history)) == 2
    assert sum("logging.mlflow failed in begin and is off" in line for line in log) == 1
    assert time.monotonic() - started < 60


@pytest.mark.promise("C5")
@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [("wandb", "wandb", "wandb"), ("mlflow", "mlflow", "mlflow"), ("tensorboard",) * 3],
)
def test_a_logger_without_its_package_is_refused_before_anything_is_written(
    option: str, package: str, extra: str, folder_data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)  # what Python has for a missing module
    monkeypatch.chdir(tmp_path)
    given = [*TINY, f"data.data_root={folder_data}", f"hydra.run.dir={tmp_path / 'run'}"]

    with pytest.raises(SystemExit) as stopped:
        train_command([*given, f"logging={option}"])

    assert stopped.value.code == EXIT_CONFIG
    assert f"pip install 'classifier-training[{extra}]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.promise("S3")
def test_a_key_never_reaches_a_file(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    address = f"http://someone:{FAKE_KEY}@server/api"
    monkeypatch.setenv("FAILS_WITH", f"no answer from {address}")
    given = use_logger("Fails", method="log_epoch")

    run = tiny_train(folder_data, tmp_path / "run", "logging=wandb", *given)

    files = [path for path in run.folder.path.rglob("*") if path.is_file()]
    assert len(wandb_files(run.folder.path)) == 1
    assert [path for path in files if FAKE_KEY.encode() in path.read_bytes()] == []
    assert "no answer from http://***@server/api" in run.folder.log.read_text()


@pytest.mark.promise("S3")
def test_a_key_in_the_configuration_is_refused(
    folder_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)

    with pytest.raises(ConfigError) as caught:
        config_of(
            f"data.data_root={folder_data}",
            "logging=wandb",
            "logging.wandb.tags=[fine,'${oc.env:WANDB_API_KEY}']",
        )

    assert "logging.wandb.tags.1" in str(caught.value)
    assert "$WANDB_API_KEY" in str(caught.value)
    assert FAKE_KEY not in str(caught.value)


@pytest.mark.promise("C1")
def test_several_loggers_are_chosen_at_once() -> None:
    config = config_of(*["data.data_root=/images", "logging=[tensorboard,wandb,csv,mlflow]"])

    assert sorted(config.logging) == ["csv", "mlflow", "tensorboard", "wandb"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real MLflow server on loopback."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder / 'db'}", "--workers", "1"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(480):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}", process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a server, and a database made anew, on a busy machine
@pytest.mark.promise("R12")
def test_mlflow_holds_the_rows_of_metrics_csv(
    server: tuple[str, Any], folder_data: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    kill = use("Kill", hook="batch_end", epoch=1, batch=3, marker=tmp_path / "killed")
    modules = f"allow_modules=[{MODULE},tests.helpers.observers]"
    given = (
        *("logging=mlflow", f"logging.mlflow.tracking_uri={server[0]}", STEPS),
        *("trainer.max_epochs=3", *use_draws(), *kill, modules),
    )
    with pytest.raises(InterruptedRunError):
        tiny_train(folder_data, tmp_path / "run", *given)
    run = tiny_train(folder_data, tmp_path / "run", *given)

    client = MlflowClient(server[0])
    experiment = client.get_experiment_by_name("classifier-training")
    assert experiment is not None
    (found,) = client.search_runs(
        [experiment.experiment_id], f"tags.`classifier_training.run_id` = '{run.record['id']}'"
    )
    rows = read_history(run.folder.history)
    for name in rows[0].keys() - {"step"}:
        history = client.get_metric_history(found.info.run_id, name)
        assert [(m.step, m.value) for m in sorted(history, key=lambda metric: metric.step)] == [
            (row["step"], row[name]) for row in rows
        ]
    losses = client.get_metric_history(found.info.run_id, "train/loss_step")
    # Lightning logs a step after the hook in which a signal stops the run: 9 was that step.
    assert sorted(metric.step for metric in losses) == [1, 3, 5, 7, 11, 13, 15, 17]
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.learning_rate"] == "0.01"
    assert found.data.metrics["best/f1_macro"] == run.best_score
    listed = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert {"model.onnx", "labels_mapping.json", "plots"} <= listed
    drawn = {item.path for item in client.list_artifacts(found.info.run_id, "plots/samples")}
    assert drawn == {f"plots/samples/step={step:07d}.png" for step in (6, 12, 18)}


@pytest.mark.slow
@pytest.mark.timeout(900)  # a server, and a database made anew, on a busy machine
@pytest.mark.promise("R6")
def test_a_server_that_vanishes_in_mid_run_does_not_stop_training(
    server: tuple[str, subprocess.Popen[bytes]], folder_data: Path, tmp_path: Path, log: list[str]
) -> None:
    plain = train_only(folder_data, tmp_path / "plain", STEPS)
    stop = [
        f"allow_modules=[{MODULE}]",
        f"callbacks.stop._target_={MODULE}.StopsServer",
        f"callbacks.stop.group={server[1].pid}",
    ]

    folder = train_only(
        folder_data, tmp_path / "run", STEPS, "logging=mlflow",
        f"logging.mlflow.tracking_uri={server[0]}", *stop,
    )  # fmt: skip

    assert differences(read(plain.last)["state_dict"], read(folder.last)["state_dict"]) == []
    said = [line for line in log if "logging.mlflow failed in" in line]
    assert len(said) == 1
