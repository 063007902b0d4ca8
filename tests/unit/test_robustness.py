"""Robustness of an exported model: the numbers, the files, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score

from classifier_training.cli.robustness import run_robustness
from classifier_training.errors import EXIT_CONFIG, EXIT_DATA, EXIT_EXPORT, EXIT_OK, DataError
from classifier_training.evaluation.labelled_images import LabelledImages
from classifier_training.evaluation.robustness import Robustness, measure, select, write_robustness
from classifier_training.inference.predictor import Predictor
from classifier_training.run.reader import Run
from classifier_training.transforms.corruptions import CORRUPTIONS
from tests.helpers.data import write_folder
from tests.helpers.onnx_pair import write_pair

pytestmark = pytest.mark.promise("N2")

CLASSES = ("0", "00", "NO")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("pair"), classes=CLASSES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images") / "d", classes=CLASSES, counts={"val": 7})


def measured(model: Path, data: Path, *names: str, seed: int = 0) -> Robustness:
    images = LabelledImages.from_folder(data, "val")
    predictor = Predictor.load(model)
    return measure(predictor, images, select(names), seed=seed, on_images=lambda *_: None)


def run(model: Path, **changes: object) -> int:
    options = {"split": "val", "data": None, "only": [], "out": None, "seed": 0, "debug": False}
    return run_robustness(model, **{**options, **changes})  # type: ignore[arg-type]


def test_scores_are_scikit_learns_on_what_predict_says_of_the_spoilt_files(
    model: Path, data: Path, tmp_path: Path
) -> None:
    found = measured(model, data, "pixelate")

    images = LabelledImages.from_folder(data, "val")
    predictor = Predictor.load(model)
    for item in found.conditions:
        files = []
        for path, file in zip(images.paths, images.files, strict=True):
            image = Image.open(file).convert("RGB")
            if item.severity:
                image = CORRUPTIONS["pixelate"].apply(image, item.severity, name=path, seed=0)
            files.append(tmp_path / f"{item.severity}-{len(files)}.png")
            image.save(files[-1])
        said = [prediction.label for prediction in predictor.predict(files)]
        assert item.scores["acc_top1"][0] == pytest.approx(accuracy_score(images.labels, said))
        expected = f1_score(images.labels, said, average="macro", zero_division=0)
        assert item.scores["f1_macro"][0] == pytest.approx(expected)


def test_every_score_has_an_interval_and_a_change_from_clean(model: Path, data: Path) -> None:
    found = measured(model, data)

    assert len(found.conditions) == 1 + 3 * len(CORRUPTIONS)
    clean = found.clean
    assert clean.corruption == "clean"
    assert clean.changes == {"acc_top1": (0, 0, 0), "f1_macro": (0, 0, 0)}
    for item in found.conditions:
        for metric, (value, low, high) in item.scores.items():
            assert low <= value + 1e-12, metric
            assert value <= high + 1e-12, metric
            assert item.changes[metric][0] == pytest.approx(value - clean.scores[metric][0])
    mean = np.mean([item.scores["acc_top1"][0] for item in found.conditions[1:]])
    assert found.mean_accuracy == pytest.approx(mean)


def test_clean_scores_and_their_intervals_are_those_of_evaluate(tiny_run: Run) -> None:
    images = LabelledImages.from_run(tiny_run.folder.path, "val", None)
    predictor = Predictor.load(tiny_run.folder.path)

    found = measure(predictor, images, select(["jpeg"]), on_images=lambda *_: None)

    recorded = tiny_run.metrics("val")["metrics"]
    for metric in ("acc_top1", "f1_macro"):
        expected = tuple(recorded[metric][key] for key in ("value", "low", "high"))
        assert found.clean.scores[metric] == pytest.approx(expected), metric


def test_images_that_moved_are_taken_from_where_they_are_now(
    tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(folder_data, tmp_path / "moved")

    found = LabelledImages.from_run(tiny_run.folder.path, "val", moved)

    assert len(found) == 24
    assert all(file.is_relative_to(moved) and file.is_file() for file in found.files)
    with pytest.raises(DataError, match="does not hold the images"):
        LabelledImages.from_run(tiny_run.folder.path, "val", tmp_path)


def test_a_corruption_alone_scores_as_it_does_among_all(model: Path, data: Path) -> None:
    alone = {
        (item.corruption, item.severity): item.scores
        for item in measured(model, data, "gaussian_noise").conditions
    }

    among = {
        (item.corruption, item.severity): item.scores for item in measured(model, data).conditions
    }

    assert alone.items() <= among.items()
    assert len(alone) == 4


def test_files_hold_every_condition(model: Path, data: Path, tmp_path: Path) -> None:
    found = measured(model, data, "jpeg", "darker")

    write_robustness(found, tmp_path)

    with (tmp_path / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads((tmp_path / "robustness.json").read_text())
    assert [(row["corruption"], row["severity"], row["amount"]) for row in rows] == [
        ("clean", "0", ""),
        *(("jpeg", str(level), amount) for level, amount in ((1, "30.0"), (2, "15.0"), (3, "5.0"))),
        *(
            ("darker", str(level), amount)
            for level, amount in ((1, "0.6"), (2, "0.35"), (3, "0.15"))
        ),
    ]
    for row, item, stored in zip(rows, found.conditions, content["conditions"], strict=True):
        assert float(row["f1_macro"]) == pytest.approx(item.scores["f1_macro"][0], abs=1e-6)
        assert stored["metrics"]["acc_top1"]["low"] == item.scores["acc_top1"][1]
        assert row["images"] == "21"


def test_the_command_prints_writes_and_draws(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(model / "model.onnx", data=data, only=["zoom_out", "brighter"], out=tmp_path / "out")

    said = capsys.readouterr().out
    assert code == EXIT_OK
    assert "zoom_out" in said
    assert "21 images; accuracy over all corruptions" in said
    for name in ("robustness.png", "robustness_examples.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 300
            assert len(set(picture.convert("L").tobytes())) > 20


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"split": "valid"}, EXIT_CONFIG, "--split valid"),
        ({"only": ["fog"]}, EXIT_CONFIG, "--only fog"),
        ({"data": Path("nowhere")}, EXIT_DATA, "nowhere"),
        ({"data": None}, EXIT_CONFIG, "where the images"),
        ({"out": None}, EXIT_CONFIG, "--out DIR"),
    ],
)
def test_faults_are_told_and_leave_nothing(
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    code: int,
    told: str,
) -> None:
    out = tmp_path / "out"

    found = run(model / "model.onnx", **{"data": data, "out": out, **changes})

    said = capsys.readouterr()
    assert found == code
    assert told in said.err
    assert "Traceback" not in said.err
    assert not out.exists()


def test_labels_that_the_model_does_not_know_are_refused_before_anything_is_made(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_folder(tmp_path / "d", classes=("0", "NOO"), counts={"val": 2})

    code = run(model / "model.onnx", data=other, out=tmp_path / "out")

    said = capsys.readouterr().err
    assert code == EXIT_DATA
    assert "'NOO', which is no class of the model; did you mean 'NO'?" in said
    assert not (tmp_path / "out").exists()


def test_no_model_is_an_export_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, out=tmp_path / "out") == EXIT_EXPORT
    assert "no ONNX model" in capsys.readouterr().err
