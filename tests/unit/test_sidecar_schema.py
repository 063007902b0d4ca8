"""The JSON Schema of the sidecar, against real sidecars and broken ones, by another's validator."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from classifier_training.config.choices import RESIZE_MODES
from classifier_training.errors import ExportError
from classifier_training.inference.calibration import (
    Calibration,
    ConformalRule,
    EnergyRule,
    UnsureRule,
)
from classifier_training.inference.input_check import MEASURES, InputStatistics
from classifier_training.inference.sidecar import SCHEMA_FILE, SCHEMA_VERSION, Sidecar
from classifier_training.run.reader import Run
from tests.helpers.onnx_pair import write_pair
from tests.unit.test_sidecar import EDITS, Edit, drop, put

SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

CALIBRATION = Calibration(
    372, 1.5, UnsureRule(0.7, "accuracy", 0.95), ConformalRule(0.9, 0.1), EnergyRule(0.95, -3.0)
)
INPUTS = InputStatistics.of({name: np.array([1.0, 2.0, 3.0]) for name in MEASURES})

# Broken in ways that only a look at other keys or files shows; reading refuses them.
BEYOND_A_SCHEMA = {
    "classes swapped",
    "class renamed",
    "maps contradict",
    "class lost",
    "class too many",
    "fewer classes",
    "more classes",
    "name twice",
    "other mean",
    "other std",
    "nan std",
    "other size",
    "other resize",
    "other hash",
    "pixels for tensors",
    "tolerance nan",
    "golden no image",
    "golden statistics off",
    "golden logits short",
    "golden logits nan",
    "golden logits off",
}

SECTIONS: dict[str, tuple[Edit, str]] = {
    "temperature zero": (put("calibration", "temperature", 0), "must be positive"),
    "temperature negative": (put("calibration", "temperature", -1), "is -1"),
    "temperature text": (put("calibration", "temperature", "1"), "must be a number"),
    "temperature true": (put("calibration", "temperature", True), "must be a number"),
    "temperature lost": (drop("calibration", "temperature"), "misses key 'temperature'"),
    "threshold above 1": (put("calibration", "unsure", "below", 1.5), "not in 0..1"),
    "threshold lost": (drop("calibration", "unsure", "below"), "misses key 'below'"),
    "other target": (put("calibration", "unsure", "target", "f1"), "is unknown"),
    "unsure no object": (put("calibration", "unsure", 0.5), "is odd"),
    "other sets": (put("calibration", "conformal", "method", "aps"), "is unknown"),
    "other score": (put("calibration", "out_of_distribution", "score", "msp"), "is unknown"),
    "energy text": (put("calibration", "out_of_distribution", "above", "x"), "must be a number"),
    "calibration a list": (put("calibration", []), "is odd"),
    "range short": (put("input_statistics", "width", [1, 2]), "is odd"),
    "range lost": (drop("input_statistics", "contrast"), "misses key 'contrast'"),
    "range negative": (put("input_statistics", "width", [-1, 2, 3]), "is no range"),
    "other quantiles": (put("input_statistics", "quantiles", [0, 0.5, 1]), "other definition"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sidecar with every section."""
    path = write_pair(tmp_path_factory.mktemp("pair")) / "labels_mapping.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["calibration"] = CALIBRATION.to_json()
    content["input_statistics"] = INPUTS.to_json()
    return content


def errors(content: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(content)]


def read(content: Any, folder: Path) -> Sidecar:
    path = folder / "labels_mapping.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return Sidecar.read(path)


@pytest.mark.promise("X4")
def test_schema_is_one_and_names_the_version() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"] == {"const": SCHEMA_VERSION}


@pytest.mark.promise("X4")
@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_written_sidecars_are_valid(tmp_path: Path, resize: Any) -> None:
    write_pair(tmp_path, resize=resize, classes=("0", "00", "é", "a/b"))

    assert errors(json.loads((tmp_path / "labels_mapping.json").read_text("utf-8"))) == []


@pytest.mark.promise("X4")
def test_sidecar_of_a_real_run_is_valid(tiny_run: Run) -> None:
    content = json.loads(tiny_run.folder.sidecar.read_text(encoding="utf-8"))

    assert errors(content) == []
    assert "calibration" in content
    assert set(content) <= set(SCHEMA["properties"])  # every key that is written is explained


@pytest.mark.promise("X4")
def test_every_key_that_is_written_is_explained(tiny_run: Run) -> None:
    content = json.loads(tiny_run.folder.sidecar.read_text(encoding="utf-8"))
    page = (Path(__file__).parents[2] / "docs" / "sidecar.md").read_text(encoding="utf-8")
    sections = ("preprocessing", "model", "provenance", "calibration")
    keys = {*content, *content["golden"][0]}.union(*(content[name] for name in sections))

    assert len(keys) > 40
    assert {key for key in keys if f"`{key}`" not in page} == set()
    assert "`normalization.mean`" in page


@pytest.mark.promise("X4")
def test_sections_are_read_back(whole: dict[str, Any], tmp_path: Path) -> None:
    sidecar = read(whole, tmp_path)

    assert errors(whole) == []
    assert sidecar.calibration == CALIBRATION
    assert sidecar.input_statistics == INPUTS
    assert sidecar.to_json() == whole


@pytest.mark.promise("X4")
def test_rules_that_could_not_be_fitted_are_null(whole: dict[str, Any], tmp_path: Path) -> None:
    content = {**whole, "calibration": Calibration(3, 1.0, None, None, None).to_json()}

    assert errors(content) == []
    assert read(content, tmp_path).calibration == Calibration(3, 1.0, None, None, None)


@pytest.mark.promise("X4")
def test_additional_keys_are_passed_over(whole: dict[str, Any], tmp_path: Path) -> None:
    content = copy.deepcopy(whole)
    content["later"] = {"anything": 1}
    content["calibration"]["later"] = 1

    assert errors(content) == []
    assert read(content, tmp_path).calibration == CALIBRATION


@pytest.mark.promise("X5")
@pytest.mark.parametrize("name", sorted(set(EDITS) - BEYOND_A_SCHEMA))
def test_schema_refuses_what_reading_refuses(whole: dict[str, Any], name: str) -> None:
    content = copy.deepcopy(whole)
    EDITS[name][0](content)

    assert errors(content)


@pytest.mark.promise("X5")
@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_broken_section_is_refused(whole: dict[str, Any], name: str, tmp_path: Path) -> None:
    content = copy.deepcopy(whole)
    edit, expected = SECTIONS[name]
    edit(content)

    assert errors(content)
    with pytest.raises(ExportError, match=expected) as caught:
        read(content, tmp_path)
    assert caught.value.exit_code == 5
