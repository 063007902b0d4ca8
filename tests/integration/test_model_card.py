"""``MODEL_CARD.md``: its numbers are those of the run's files, and its programs run."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from classifier_training.cli.export import ExportOptions, run_export
from classifier_training.config.choices import ResizeMode
from classifier_training.inference.predictor import Predictor
from classifier_training.report.model_card import model_card, write_model_card
from classifier_training.run.folder import RunFolder
from classifier_training.run.reader import Run
from classifier_training.system.files import write_json
from tests.helpers.data import class_image
from tests.helpers.markdown import Rendered, fences
from tests.helpers.onnx_pair import write_pair


@pytest.fixture
def folder(tiny_run: Run, tmp_path: Path) -> RunFolder:
    """A copy of a finished run."""
    return RunFolder(Path(shutil.copytree(tiny_run.folder.path, tmp_path / "run")))


def card_of(folder: RunFolder) -> str:
    return folder.model_card.read_text(encoding="utf-8")


def rewritten(folder: RunFolder) -> str:
    return write_model_card(folder).read_text(encoding="utf-8")


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def change(path: Path, keys: str, value: object) -> None:
    """Replace one value of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    *outer, last = keys.split("/")
    part = content
    for key in outer:
        part = part[key]
    part[last] = value
    write_json(path, content)


@pytest.mark.promise("N7")
def test_files_are_named_by_their_hash_and_size(tiny_run: Run) -> None:
    rows = Rendered(section(card_of(tiny_run.folder), "Files")).rows[1:]

    assert {row[0] for row in rows} >= {
        "model.onnx",
        "labels_mapping.json",
        "checkpoints/best.ckpt",
    }
    for name, size, digest in rows:
        content = (tiny_run.folder.path / name).read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()
        assert int(size.replace(",", "")) == len(content)


@pytest.mark.promise("N7")
def test_every_headline_score_stands_there_with_its_interval(tiny_run: Run) -> None:
    _, *rows = Rendered(section(card_of(tiny_run.folder), "Scores")).rows
    cells = {tuple(row[1:3]) for row in rows}

    for name in tiny_run.metrics("test")["metrics"]:
        expected = []
        for split in ("val", "test"):
            found = tiny_run.metrics(split)["metrics"][name]
            expected.append(f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
        assert tuple(expected) in cells
    assert any("majority" in row[0] and row[1].startswith("0.250") for row in rows)


@pytest.mark.promise("N7")
@pytest.mark.promise("X4")
def test_preprocessing_is_the_sidecars_whole(tiny_run: Run) -> None:
    sidecar = json.loads(tiny_run.folder.sidecar.read_text(encoding="utf-8"))
    (shown,) = fences(section(card_of(tiny_run.folder), "Preprocessing"), "json")

    assert json.loads(shown) == {key: sidecar[key] for key in ("preprocessing", "normalization")}


def run_program(source: str, folder: Path, images: list[str]) -> list[tuple[str, str, float]]:
    """Run a program of the card beside the model, as somebody who was handed the files."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", source, *images],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line.rsplit(" ", 2) for line in done.stdout.splitlines())
    return [(path, label, float(confidence)) for path, label, confidence in lines]


@pytest.mark.promise("N7")
@pytest.mark.promise("X3")
@pytest.mark.parametrize("number", [0, 1], ids=["package", "alone"])
def test_programs_give_the_predictions_of_the_evaluation(tiny_run: Run, number: int) -> None:
    with (tiny_run.folder.evaluation("test") / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    root = tiny_run.record["data_root"]
    program = fences(card_of(tiny_run.folder), "python")[number]

    answers = run_program(program, tiny_run.folder.path, [f"{root}/{row['path']}" for row in rows])

    assert [label for _, label, _ in answers] == [row["predicted"] for row in rows]
    expected = [float(row["confidence"]) for row in rows]
    assert [confidence for _, _, confidence in answers] == pytest.approx(expected, abs=2e-6)


@pytest.mark.promise("N7")
@pytest.mark.promise("X4")
@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_the_program_without_the_package_preprocesses_as_it_does(
    tiny_run: Run, tmp_path: Path, resize: ResizeMode
) -> None:
    pair = write_pair(tmp_path / "pair", resize=resize, size=17)
    images = []
    for number, size in enumerate([(61, 23), (20, 47), (9, 9)]):
        images.append(str(tmp_path / f"{number}.png"))
        class_image(number, number, size).save(images[-1])
    sidecar = json.loads((pair / "labels_mapping.json").read_text(encoding="utf-8"))
    run = Run(tiny_run.path)
    run.sidecar = {**run.sidecar, "preprocessing": sidecar["preprocessing"]}

    answers = run_program(fences(model_card(run), "python")[1], pair, images)

    expected = list(Predictor.load(pair).predict(images))
    assert [answer[:2] for answer in answers] == [(item.path, item.label) for item in expected]
    assert [answer[2] for answer in answers] == pytest.approx(
        [item.confidence for item in expected], abs=2e-6
    )


@pytest.mark.promise("N7")
def test_front_matter_is_what_the_hub_reads(tiny_run: Run) -> None:
    _, front, _ = card_of(tiny_run.folder).split("---\n", 2)
    content = yaml.safe_load(front)
    (model,) = content["model-index"]
    (result,) = model["results"]

    assert "license" not in content  # the publisher's to say
    assert content["pipeline_tag"] == "image-classification"
    assert result["dataset"]["split"] == "test"
    accuracy = next(item for item in result["metrics"] if item["type"] == "accuracy")
    assert accuracy["value"] == tiny_run.metrics("test")["metrics"]["acc_top1"]["value"]


@pytest.mark.promise("N7")
def test_limits_follow_from_the_facts(folder: RunFolder) -> None:
    before = section(rewritten(folder), "Limits")
    change(folder.statistics, "splits/train/per_class/1e3", 3)
    change(folder.statistics, "splits/val/per_class/00", 0)
    change(folder.check, "images_decoded", False)
    metrics = folder.evaluation("test") / "metrics.json"
    change(metrics, "majority_class_accuracy", 0.99)
    after = section(rewritten(folder), "Limits")

    for sentence in (
        "1 class learnt from fewer than 10 images: 1e3",
        "1 class absent in val and not measured there: 00",
        "not decoded before training",
        "not shown to be better than guessing",
    ):
        assert sentence not in before
        assert sentence in after


@pytest.mark.promise("N7")
def test_without_a_test_split_the_card_says_so(folder: RunFolder) -> None:
    shutil.rmtree(folder.evaluation("test"))
    splits = json.loads(folder.statistics.read_text())["splits"]
    change(folder.statistics, "splits", {name: splits[name] for name in ("train", "val")})
    calibration = json.loads(folder.calibration.read_text())["measured"]
    change(folder.calibration, "measured", {"val": calibration["val"]})

    card = rewritten(folder)

    assert "There was no test split." in section(card, "Limits")
    assert "24 val images" in card.split("## The model")[0]
    assert (
        yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"][0]["dataset"]["split"]
        == "val"
    )


@pytest.mark.promise("N7")
def test_an_export_renews_the_hashes(folder: RunFolder) -> None:
    before = card_of(folder)

    assert (
        run_export(folder.path, ExportOptions(19, "fp32", "float32", 0.01, None), debug=True) == 0
    )

    digest = hashlib.sha256(folder.onnx.read_bytes()).hexdigest()
    assert digest not in before
    assert re.search(digest, card_of(folder))
    assert "opset 19" in card_of(folder)
