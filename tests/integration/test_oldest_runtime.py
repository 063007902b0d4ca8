"""The oldest onnxruntime, numpy and Pillow that pyproject.toml allows run what is exported."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

from classifier_training.exporters.int8 import export_int8
from classifier_training.exporters.latency import SpeedUp
from classifier_training.exporters.uint8 import export_pixels
from classifier_training.inference.predictor import Predictor
from classifier_training.run.reader import Run

ROOT = Path(__file__).parents[2]

VERSIONS = """
import importlib.metadata, json
print(json.dumps({name: importlib.metadata.version(name) for name in
      ("onnxruntime", "numpy", "Pillow")}))
"""


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base install with every direct dependency at its floor; returns its ``bin``."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("this test needs uv on PATH: it makes an environment of the oldest versions")
    venv = tmp_path_factory.mktemp("oldest") / "venv"
    run(uv, "venv", "--python", "3.11", venv)
    run(
        *(uv, "pip", "install", "--python", venv / "bin/python"),
        *("--resolution", "lowest-direct", ROOT),
    )
    return venv / "bin"


def run(*command: str | Path) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def floor(package: str) -> str:
    """Return the lowest version that pyproject.toml allows."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (version,) = [line.partition(">=")[2] for line in wanted if line.startswith(f"{package}>=")]
    return version


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.promise("X3")
@pytest.mark.promise("X8")
def test_the_oldest_versions_predict_what_was_evaluated(
    oldest: Path, tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    versions = json.loads(run(oldest / "python", "-c", VERSIONS))
    folder = Path(shutil.copytree(tiny_run.folder.path, tmp_path / "run"))
    export_pixels(folder)
    export_int8(folder, stopwatch=lambda *_, batch, pairs: SpeedUp(batch, 2, 1, 2, 2))

    for package, version in versions.items():
        assert version.startswith(floor(package)), versions
    with (folder / "evaluation" / "test" / "predictions.csv").open(newline="") as file:
        recorded = {folder_data / row["path"]: row for row in csv.DictReader(file)}
    for name, tolerance in (("model.onnx", 2e-5), ("model.uint8.onnx", 2e-5)):
        out = tmp_path / f"{name}.csv"
        run(oldest / "classifier", "predict", folder / name, folder_data / "test", "--out", out)
        with out.open(newline="") as file:
            found = {Path(row["path"]): row for row in csv.DictReader(file)}
        assert found.keys() == recorded.keys()
        for path, row in found.items():
            assert row["predicted"] == recorded[path]["predicted"]
            difference = float(row["confidence"]) - float(recorded[path]["confidence"])
            assert abs(difference) <= tolerance
    run(oldest / "classifier", "verify", folder)  # the int8 variant too
    out = tmp_path / "int8.csv"
    run(oldest / "classifier", "predict", folder / "model.int8.onnx", folder_data, "--out", out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    again = Predictor.load(folder / "model.int8.onnx").predict([row["path"] for row in rows])
    for row, item in zip(rows, again, strict=True):
        assert np.isclose(float(row["confidence"]), item.confidence, atol=0.02)
