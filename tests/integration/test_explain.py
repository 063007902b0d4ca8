"""Grad-CAM pictures of a run: of the right images, and without any effect on the run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from classifier_training.models.weights import read_checkpoint
from classifier_training.run.reader import Run
from tests.helpers.hard_data import write_hard_folder
from tests.helpers.runs import tiny_train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hard_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def explained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("run") / "run"
    return tiny_train(data, out, "explain.enabled=true", "explain.images=6")


@pytest.fixture(scope="module")
def hindered(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run where neither the pictures nor the model card can be written."""
    out = tmp_path_factory.mktemp("run") / "run"
    (out / "plots").mkdir(parents=True)
    (out / "plots/gradcam").write_text("in the way")
    (out / "MODEL_CARD.md").mkdir()
    return tiny_train(data, out, "explain.enabled=true", "explain.images=6")


def predictions(run: Run, split: str) -> list[dict[str, str]]:
    path = run.folder.evaluation(split) / "predictions.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.promise("N10")
def test_the_worst_mistakes_of_both_splits_are_drawn(explained: Run) -> None:
    index = json.loads((explained.folder.gradcam / "index.json").read_text(encoding="utf-8"))

    assert index["schema_version"] == 1
    assert index["layer"].startswith("network.features")
    assert len(index["images"]) == 6
    for split in ("val", "test"):
        rows = predictions(explained, split)
        wrong = [row for row in rows if row["correct"] == "false"]
        wrong.sort(key=lambda row: -float(row["confidence"]))
        drawn = [item for item in index["images"] if item["split"] == split]
        assert len(drawn) == 3
        assert len(wrong) >= 2
        assert [item["path"] for item in drawn[:2]] == [row["path"] for row in wrong[:2]]
        by_path = {row["path"]: row for row in rows}
        for item in drawn:
            row = by_path[item["path"]]
            assert (item["true"], item["predicted"]) == (row["true"], row["predicted"])
            assert item["confidence"] == pytest.approx(float(row["confidence"]), abs=1e-6)
            with Image.open(explained.folder.path / item["overlay"]) as picture:
                assert len(picture.convert("RGB").getcolors(1 << 20)) > 100


@pytest.mark.promise("N10")
@pytest.mark.promise("R6")
def test_what_cannot_be_drawn_or_told_does_not_fail_the_run(hindered: Run) -> None:
    log = hindered.folder.log.read_text(encoding="utf-8")

    assert hindered.record["status"] == "finished"
    assert "the Grad-CAM plots could not be made; the run continues" in log
    assert "the model card could not be made; the run continues" in log
    assert hindered.folder.onnx.exists()


@pytest.mark.promise("N10")
def test_weights_and_scores_are_those_of_a_run_without_pictures(
    explained: Run, hindered: Run
) -> None:
    for split in ("val", "test"):
        assert predictions(explained, split) == predictions(hindered, split)
    one, other = (read_checkpoint(run.folder.best)["state_dict"] for run in (explained, hindered))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
