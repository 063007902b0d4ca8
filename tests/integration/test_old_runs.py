"""Runs of the first layout are read, and resumed, as runs of today."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import classifier_training
from classifier_training.cli.main import app
from classifier_training.errors import ResumeError
from classifier_training.run.reader import Run
from tests.helpers.runs import tiny_train

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run_v1"
NOISE = "classifier_training.transforms.{}.GaussianNoise"
AS_TRAINED = (
    "transforms.train=[{_target_: torchvision.transforms.v2.Resize, size: [32,32]},"
    "{_target_: " + NOISE.format("corruptions") + ", p: 0.5, sigma: [0.0, 5.0]}]",
    "optimizer.learning_rate=0.02",
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "old")
    return tmp_path / "old"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.promise("R5")
def test_old_run_is_read(old: Path) -> None:
    run = Run(old / "finished", data_root=old / "data")

    assert run.record["status"] == "finished"
    assert run.config["optimizer"] == {
        "name": "adamw",
        "learning_rate": 0.02,
        "weight_decay": 0.05,
        "betas": [0.9, 0.999],
        "head_lr_multiplier": 1.0,
    }
    assert (run.settings["schedule.name"], run.settings["loss.name"]) == ("cosine", "cross_entropy")
    assert run.config["transforms"]["train"][1]["_target_"] == NOISE.format("corruptions")
    assert [row["epoch"] for row in run.history] == [0, 1]
    assert run.best_score == run.history[0]["val/f1_macro"]
    assert run.class_map.names == ("0", "00", "1e3", "NO")
    assert len(run.manifest) == 44
    assert len(run.predictions("test")) == 8
    assert run.model().epoch == run.record["best"]["epoch"]
    assert all("fix" in finding and "mend" not in finding for finding in run.findings)


@pytest.mark.promise("T1")
@pytest.mark.promise("X1")
def test_old_run_evaluates_and_exports_to_the_same_scores(old: Path) -> None:
    run = Run(old / "finished")
    before = run.metrics("test")["metrics"]["acc_top1"]
    hashed = run.sidecar["provenance"]["weights_sha256"]

    found = classifier_training.evaluate(run, split="test", data_root=old / "data", workers=0)
    exported = classifier_training.export(run, data_root=old / "data")

    assert found.scores.value("acc_top1") == before["value"]
    assert json.loads(exported.sidecar.read_text())["provenance"]["weights_sha256"] == hashed


@pytest.mark.promise("I4")
def test_old_run_passes_every_command(old: Path, tmp_path: Path) -> None:
    done, data = old / "finished", ("--data-root", old / "data")
    for arguments in (
        ("report", done, *data),
        ("compare", done, done),
        ("runs", old),
        ("verify", done, "--data", old / "data"),
        ("predict", done, old / "data" / "test", "--out", tmp_path / "predictions.csv"),
        ("suspects", done, *data),
        ("reproduce", done, *data, "--out", tmp_path / "again"),
    ):
        result = command(*arguments)
        assert result.exit_code == 0, (arguments, result.output)
    assert "reproduced" in result.output
    assert command("runs", old, "--json", tmp_path / "runs.json").exit_code == 0
    assert "406f587d5a08" in (tmp_path / "runs.json").read_text()


@pytest.mark.promise("R1")
def test_old_run_that_was_stopped_resumes_exactly(old: Path) -> None:
    run = tiny_train(old / "data", old / "interrupted", *AS_TRAINED)

    assert run.record["status"] == "finished"
    # Bit-equal with two threads, as the fixture was made; another number rounds otherwise.
    for row, whole in zip(run.history, Run(old / "finished").history, strict=True):
        assert row == pytest.approx(whole, rel=1e-6)
    assert len(run.record["changes"]) == 1, "data.data_root alone"


@pytest.mark.promise("R4")
def test_old_run_with_other_settings_is_refused(old: Path) -> None:
    with pytest.raises(ResumeError, match="learning_rate") as caught:
        tiny_train(old / "data", old / "interrupted", AS_TRAINED[0], "optimizer.learning_rate=0.03")

    assert caught.value.what.count("\n    - ") == 1, "nothing but the learning rate differs"
