"""The calibration of a run: fitted on val alone, shipped in the sidecar, used when asked."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifier_training.config.schema import CalibrationConfig
from classifier_training.evaluation.calibrate import fit_calibration, write_calibration
from classifier_training.exporters.onnx import export
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.predictor import Extras, Predictor
from classifier_training.run.folder import RunFolder
from classifier_training.run.reader import Run
from tests.helpers.data import class_image, write_folder
from tests.helpers.predicting import predict
from tests.helpers.runs import tiny_train

CONFIG = CalibrationConfig(
    enabled=True,
    target_accuracy=0.9,
    target_coverage=None,
    conformal_coverage=0.9,
    ood_kept=0.95,
)


def answers(seed: int, images: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return overconfident logits of five classes, about 80 % right, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, images)
    logits = rng.normal(0, 4, (images, 5))
    logits[np.arange(images), labels] += 8
    return logits.astype(np.float32), labels


def section(path: Path) -> Any:
    return json.loads((path / "labels_mapping.json").read_text(encoding="utf-8"))["calibration"]


@pytest.fixture(scope="module")
def hard_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on images that it gets partly wrong, with 80 of val."""
    root = tmp_path_factory.mktemp("hard")
    data = write_folder(root / "data", counts={"train": 8, "val": 20, "test": 10})
    for seed, path in enumerate(sorted(data.glob("*/00/*.png"))[::2]):
        class_image(3, 9000 + seed).save(path)  # half of them look like the class "NO"
    return tiny_train(
        data, root / "run", "calibration.target_accuracy=null", "calibration.target_coverage=0.8"
    )


@pytest.mark.promise("N5")
def test_run_ships_what_it_fitted(hard_run: Run) -> None:
    folder = hard_run.folder
    written = json.loads(folder.calibration.read_text(encoding="utf-8"))

    assert written["calibration"] == section(folder.path)
    assert written["calibration"]["images"] == 80
    assert written["not_fitted"] == []
    for split, images in {"val": 80, "test": 40}.items():
        found = written["measured"][split]
        assert found["images"] == images
        for name in ("coverage", "accuracy"):
            value = found["unsure"][name]
            assert value["low"] <= value["value"] <= value["high"]
        covered = found["conformal"]["by_class"].values()
        assert sum(item["images"] for item in covered) == images
        share = sum(item["covered"] for item in covered) / images
        assert found["conformal"]["coverage"]["value"] == pytest.approx(share)
    val = written["measured"]["val"]
    assert val["nll"]["after"] <= val["nll"]["before"]
    assert val["unsure"]["coverage"]["value"] == pytest.approx(0.8, abs=0.02)
    assert val["conformal"]["coverage"]["value"] >= 0.9
    assert val["out_of_distribution"]["flagged"]["value"] <= 0.05


@pytest.mark.promise("N5")
def test_curve_is_that_of_the_recorded_answers(hard_run: Run) -> None:
    folder = hard_run.folder.evaluation("test")
    with (folder / "predictions.csv").open(newline="") as file:
        correct = [row["correct"] == "true" for row in csv.DictReader(file)]
    with (folder / "coverage_accuracy.csv").open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]

    assert rows[-1]["coverage"] == 1
    assert rows[-1]["accuracy"] == pytest.approx(np.mean(correct))
    assert [row["threshold"] for row in rows] == sorted(row["threshold"] for row in rows)[::-1]
    assert all(row["answered"] == pytest.approx(40 * row["coverage"]) for row in rows)


@pytest.mark.promise("N5")
def test_export_ships_the_same_and_never_that_of_another_epoch(
    hard_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(hard_run.folder.path, tmp_path / "run"))
    export(copy)
    assert section(copy) == section(hard_run.folder.path)

    path = copy / "evaluation" / "calibration.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "epoch": content["epoch"] + 1}))
    export(copy)
    assert "calibration" not in json.loads((copy / "labels_mapping.json").read_text())
    Predictor.load(copy)


@pytest.mark.promise("N5")
def test_test_images_move_nothing(tmp_path: Path) -> None:
    classes = ClassMap(tuple("abcde"))
    found = [
        write_calibration(RunFolder(tmp_path), 0, CONFIG, classes, {"val": answers(1), **others})
        for others in ({}, {"test": answers(2)}, {"test": answers(3, images=1)})
    ]

    assert found[0] is not None
    assert found[1] == found[0] == found[2]
    assert found[0].temperature > 1.2
    assert fit_calibration(*answers(1), CONFIG)[0] == found[0]


@pytest.mark.promise("N5")
def test_turned_off_leaves_nothing(tmp_path: Path) -> None:
    classes, folder = ClassMap(tuple("abcde")), RunFolder(tmp_path)
    write_calibration(folder, 0, CONFIG, classes, {"val": answers(1)})
    off = CONFIG.model_copy(update={"enabled": False})

    assert write_calibration(folder, 0, off, classes, {"val": answers(1)}) is None
    assert not folder.calibration.exists()


@pytest.mark.promise("N5")
def test_tiny_val_gives_reasons_instead_of_numbers(tmp_path: Path) -> None:
    calibration, reasons = fit_calibration(*answers(1, images=5), CONFIG)

    assert calibration.temperature == 1
    assert (calibration.unsure, calibration.conformal, calibration.energy) == (None, None, None)
    assert len(reasons) == 4
    assert all("5 images" in reason or "there are fewer" in reason for reason in reasons)


@pytest.mark.promise("N5")
def test_sets_cover_new_images_and_threshold_reaches_the_target() -> None:
    logits, labels = answers(10, images=2000)
    calibration, _ = fit_calibration(*answers(11, images=2000), CONFIG)
    assert calibration.conformal is not None
    assert calibration.unsure is not None

    probabilities = calibration.probabilities(logits)
    sets = [calibration.candidates(row) for row in probabilities]
    sure = probabilities.max(axis=1) >= calibration.unsure.below

    covered = np.mean([label in found for label, found in zip(labels, sets, strict=True)])
    assert covered == pytest.approx(0.9, abs=0.025)
    right = probabilities.argmax(axis=1) == labels
    assert right.mean() < 0.87
    assert right[sure].mean() == pytest.approx(0.9, abs=0.03)
    assert sure.mean() > 0.6


@pytest.mark.promise("N5")
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_prediction_says_what_was_asked(hard_run: Run, tmp_path: Path, ending: str) -> None:
    run, out = hard_run.folder.path, tmp_path / f"p.{ending}"
    images = Path(hard_run.record["data_root"]) / "test"
    assert predict(run, images, out=out, extras=Extras(True, True, True)) == 0
    plain = list(Predictor.load(run).predict(sorted(images.rglob("*.png"))))
    rules = section(run)

    if ending == "csv":
        with out.open(newline="") as file:
            rows: list[dict[str, Any]] = [
                {
                    **row,
                    "unsure": json.loads(row["unsure"]),
                    "out_of_distribution": json.loads(row["out_of_distribution"]),
                    "candidates": json.loads(row["candidates"]),
                    "probabilities": {
                        key.removeprefix("prob:"): float(value)
                        for key, value in row.items()
                        if key.startswith("prob:")
                    },
                }
                for row in csv.DictReader(file)
            ]
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]

    assert len(rows) == len(plain) == 40
    for row, item in zip(rows, plain, strict=True):
        assert row["path"] == item.path
        assert row["predicted"] == item.label  # a temperature changes no class
        powered = item.probabilities.astype(float) ** (1 / rules["temperature"])
        expected = dict(
            zip(row["probabilities"], powered / powered.sum(), strict=True)
        )  # softmax(z / T) is softmax(z) ** (1 / T), normalised
        assert row["probabilities"] == pytest.approx(expected, abs=1e-5)
        confidence = float(row["confidence"])
        assert row["unsure"] == (confidence < rules["unsure"]["below"])
        least = rules["conformal"]["least_probability"]
        held = {name for name, value in row["probabilities"].items() if value >= least}
        assert set(row["candidates"]) == held
        energy = float(row["energy"])
        assert row["out_of_distribution"] == (energy > rules["out_of_distribution"]["above"])
    assert any(row["unsure"] for row in rows)
    assert not all(row["unsure"] for row in rows)
