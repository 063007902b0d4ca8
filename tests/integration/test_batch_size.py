"""`data.batch_size=auto`: decided once, recorded, and otherwise a run like any other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from classifier_training.cli.main import app
from classifier_training.config.schema import Config
from classifier_training.errors import ConfigError, InterruptedRunError
from classifier_training.run.reader import Run
from classifier_training.training import estimate
from classifier_training.training.estimate import (
    StepEstimate,
    largest_that_fits,
    most_images,
    with_batch_size,
)
from classifier_training.training.hardware import Device, Hardware
from tests.helpers.checkpoints import differences, training_state
from tests.helpers.observers import use
from tests.helpers.runs import tiny_train
from tests.helpers.training import tiny_config

CPU = Hardware(Device("cpu", "a CPU"), "32-true", "it is one")


@pytest.mark.promise("R8")
@pytest.mark.parametrize(
    ("memory_of", "most", "taken"), [(1000, 64, 64), (70, 64, 32), (3, 64, 2), (2, 64, 1)]
)
def test_the_largest_power_of_two_that_fits(memory_of: int, most: int, taken: int) -> None:
    found = StepEstimate(fixed_bytes=0, image_bytes=1e6, free=memory_of * 10**6, images_per_s=1.0)

    assert largest_that_fits(found, most) == taken


@pytest.mark.promise("R8")
def test_where_no_image_fits_the_error_says_so() -> None:
    found = StepEstimate(fixed_bytes=10**9, image_bytes=1e6, free=10**9, images_per_s=1.0)

    with pytest.raises(ConfigError, match="not even one image fits"):
        largest_that_fits(found, 64)


@pytest.mark.promise("R8")
@pytest.mark.parametrize(("images", "most"), [(48, 2), (320, 16), (10_000, 32), (3, 2)])
def test_an_epoch_keeps_its_steps(folder_data: Path, images: int, most: int) -> None:
    config = tiny_config(folder_data, "data.batch_size=auto")

    assert most_images(config, CPU, images=images) == most
    several = tiny_config(folder_data, "data.batch_size=auto", "trainer.accumulate_grad_batches=4")
    assert most_images(several, CPU, images=4 * images) == most  # four batches are a step
    assert most_images(config, replace(CPU, device=Device("cuda", "a GPU")), images=10_000) == 256


@pytest.mark.promise("R8")
def test_a_number_is_left_as_it_is(folder_data: Path) -> None:
    config = tiny_config(folder_data, "data.batch_size=7")

    assert with_batch_size(config, CPU, classes=4, images=48) is config


@pytest.mark.promise("R8")
@pytest.mark.promise("R1")
@pytest.mark.promise("R21")
def test_a_run_goes_on_with_the_size_that_it_began_with(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with more room, the size that is recorded holds."""
    explicit = tiny_train(folder_data, tmp_path / "explicit", "data.batch_size=2")
    kill = use("Kill", hook="batch_start", epoch=0, batch=3, marker=tmp_path / "killed")
    with pytest.raises(InterruptedRunError):
        tiny_train(folder_data, tmp_path / "auto", "data.batch_size=auto", *kill)
    assert Run(tmp_path / "auto").record["batch_size"] == 2

    def most(_config: Config, _hardware: Hardware, *, images: int) -> int:
        return images

    monkeypatch.setattr(estimate, "most_images", most)
    auto = tiny_train(folder_data, tmp_path / "auto", "data.batch_size=auto", *kill)

    assert auto.record["batch_size"] == 2
    assert not differences(*(training_state(run.folder.last) for run in (auto, explicit)))
    again = ["reproduce", str(auto.folder.path), "--allow-module", "tests.helpers.observers"]
    repeated = CliRunner().invoke(app, again)
    assert repeated.exit_code == 0, repeated.output  # with what is recorded, not with 48
    card = (auto.folder.path / "MODEL_CARD.md").read_text()
    assert "batches of 2;" in card
    assert json.loads(auto.folder.record_file.read_text())["status"] == "finished"
