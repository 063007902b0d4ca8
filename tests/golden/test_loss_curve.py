"""The losses of a small run, step by step, as they were when somebody last looked at them.

``make golden-update`` rewrites the file; read the difference before you commit it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from classifier_training.errors import InterruptedRunError
from classifier_training.run.history import read_history
from tests.helpers.observers import Watch, use
from tests.helpers.training import train_only

_FILE = Path(__file__).with_name("loss_curve.json")
_CASES = {
    "default": (),
    "weighted_focal_accumulated": (
        "loss=weighted",
        "loss.focal_gamma=2.0",
        "trainer.accumulate_grad_batches=2",
        "optimizer.head_lr_multiplier=3.0",
    ),
}


@pytest.fixture(scope="module")
def curves(request: pytest.FixtureRequest) -> dict[str, dict[str, list[float]]]:
    stored: dict[str, dict[str, list[float]]]
    stored = json.loads(_FILE.read_text()) if _FILE.exists() else {}
    return stored


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


def _curve(data: Path, out: Path, *overrides: str) -> dict[str, list[float]]:
    folder = train_only(data, out, "trainer.max_epochs=3", *overrides, *use("Watch"))
    return {
        "train": _rounded(Watch.seen["loss"]),
        "val": _rounded([row["val/loss"] for row in read_history(folder.history)]),
    }


@pytest.mark.promise("T11")
@pytest.mark.parametrize("name", list(_CASES))
def test_losses_are_those_of_the_golden_file(
    name: str,
    curves: dict[str, dict[str, list[float]]],
    folder_data: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    found = _curve(folder_data, tmp_path / "run", *_CASES[name])

    if request.config.getoption("--update-golden"):
        curves[name] = found
        _FILE.write_text(json.dumps(curves, indent=1) + "\n")
    assert found["train"] == pytest.approx(curves[name]["train"], rel=1e-5)
    assert found["val"] == pytest.approx(curves[name]["val"], rel=1e-5)


@pytest.mark.promise("T11")
@pytest.mark.promise("R1")
def test_resumed_run_has_the_tail_of_the_golden_curve(
    curves: dict[str, dict[str, list[float]]], folder_data: Path, tmp_path: Path
) -> None:
    kill = use("Kill", hook="batch_start", epoch=1, batch=2, marker=tmp_path / "killed")
    with pytest.raises(InterruptedRunError):
        train_only(folder_data, tmp_path / "run", "trainer.max_epochs=3", *kill)

    found = _curve(folder_data, tmp_path / "run", *kill)

    assert found["train"] == pytest.approx(curves["default"]["train"][9:], rel=1e-5)
    assert found["val"] == pytest.approx(curves["default"]["val"], rel=1e-5)
