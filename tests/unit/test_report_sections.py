"""What the sections of a report say of a run whose files were written by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifier_training.evaluation.predictions import read_source
from classifier_training.report.gallery import Pictures, behind_cells, gallery_of
from classifier_training.report.matrix import matrix_of
from classifier_training.report.sections import classes_of, curves_of
from classifier_training.report.verdict import verdict_of
from classifier_training.run.folder import RunFolder
from classifier_training.run.predictions import Predictions
from classifier_training.run.reader import Run, StoredEvaluation

pytestmark = pytest.mark.promise("N6")

CLASSES = ("a", "b", "c")
# Most images are of a, most answers are b, and c has no images.
TRUE = [0, 0, 0, 0, 0, 0, 1, 1, 1]
SAID = [1, 1, 1, 1, 2, 0, 0, 1, 1]
CONFIDENCE = [0.7, 0.9, 0.6, 0.8, 0.95, 0.5, 0.85, 0.4, 0.99]
SECOND_CONFIDENCE = [0.2, 0.05, 0.35, 0.1, 0.01, 0.4, 0.1, 0.38, 0.005]


def interval(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def a_class(name: str, support: int, recall: float | None) -> dict[str, str]:
    bounds = ("", "") if recall is None else (f"{recall - 0.1}", f"{recall + 0.1}")
    row = {"class": name, "support": str(support)}
    for score in ("recall", "precision", "f1"):
        row |= {score: f"{recall or 0}", f"{score}_low": bounds[0], f"{score}_high": bounds[1]}
    return row


def probabilities() -> np.ndarray:
    """The confidence for the predicted class, the second for another one."""
    found = np.zeros((len(TRUE), len(CLASSES)))
    rows = np.arange(len(TRUE))
    found[rows, SAID] = CONFIDENCE
    second = [
        true if true != said else (said + 1) % 3 for true, said in zip(TRUE, SAID, strict=True)
    ]
    found[rows, second] = SECOND_CONFIDENCE
    return found


def make_split(name: str = "test", majority: float = 0.3) -> StoredEvaluation:
    """Nine images of three classes, of which three are right."""
    return StoredEvaluation(
        name=name,
        scores={
            "metrics": {"acc_top1": interval(0.6)},
            "baselines": {"majority_class": {"acc_top1": interval(majority)}},
        },
        classes=CLASSES,
        per_class=[a_class("a", 6, 1 / 6), a_class("b", 3, 2 / 3), a_class("c", 0, None)],
        confusion=np.array([[1, 4, 1], [1, 2, 0], [0, 0, 0]]),
        predictions=Predictions(
            name="a run",
            classes=CLASSES,
            paths=tuple(f"{row}.png" for row in range(len(TRUE))),
            true=np.array(TRUE),
            predicted=np.array(SAID),
            probabilities=probabilities(),
            losses=None,
        ),
        slices=[],
        reliability=[],
        risk_coverage=[],
    )


def make_data(folder: Path, split: StoredEvaluation, **changes: Any) -> Run:
    """A finished run of four epochs, the second of them the best."""
    history = [
        {
            "epoch": float(epoch),
            "step": 5.0 * epoch,
            "train/loss": 1 / (1 + epoch),
            "val/loss": loss,
        }
        for epoch, loss in enumerate((0.9, 0.3, 0.4, 0.5))
    ]
    best = {"metric": "val/acc_top1", "epoch": 1, "score": 0.6}
    run = Run.__new__(Run)  # what a folder would hold, without the folder
    vars(run).update(
        folder=RunFolder(folder),
        record={"status": "finished", "best": best},
        settings={},
        history=history,
        evaluations=(split,),
        statistics={},
        check={"findings": []},
        calibration={},
        suspects=None,
        model_info={},
        overlays=[],
        sidecar={},
    )
    if "findings" in changes:
        changes["check"] = {"findings": changes.pop("findings")}
    vars(run).update(changes)
    return run


@pytest.mark.parametrize(
    ("majority", "tone", "begins"),
    [
        (0.3, "good", "Clearly better than guessing"),  # 20..40 % against 50..70 %
        (0.45, "plain", "Better than guessing, but not by far"),  # the intervals overlap
        (0.55, "warn", "Not shown to be better than guessing"),  # within the interval
    ],
)
def test_the_verdict_compares_with_guessing(
    majority: float, tone: str, begins: str, tmp_path: Path
) -> None:
    note = verdict_of(make_data(tmp_path, make_split(majority=majority)), None).notes[0]

    assert note.tone == tone
    assert note.text.startswith(begins)
    assert "\u2018\u2068a\u2069\u2019" in note.text, "most images are of a"


def test_the_verdict_warns_of_what_makes_a_score_too_good(tmp_path: Path) -> None:
    def warnings(data: Run) -> str:
        return " ".join(note.text for note in verdict_of(data, None).notes if note.tone == "warn")

    def copies(*splits: str) -> list[dict[str, Any]]:
        pair = {"images": [{"split": split} for split in splits]}
        return [{"code": "near-duplicate-across-splits", "items": [pair, pair]}]

    test = make_split()
    assert warnings(make_data(tmp_path, test)) == ""
    assert warnings(make_data(tmp_path, test, findings=copies("train", "val"))) == ""
    assert "2 pairs of near copies" in warnings(
        make_data(tmp_path, test, findings=copies("train", "test"))
    )
    assert "There was no test split" in warnings(make_data(tmp_path, make_split("val")))
    unfinished = {"status": "interrupted", "best": None}
    assert "its status is interrupted" in warnings(make_data(tmp_path, test, record=unfinished))


def write_answers(run: Path, right: int) -> None:
    """Write the answers to 60 images of two classes, of which the first are right."""
    path = run / "evaluation" / "test" / "predictions.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "true", "predicted", "correct", "confidence", "prob:a", "prob:b"])
        for row in range(60):
            said, shares = ("a", (0.9, 0.1)) if row < right else ("b", (0.1, 0.9))
            writer.writerow([f"{row}.png", "a", said, str(row < right).lower(), 0.9, *shares])


@pytest.mark.promise("N2")
@pytest.mark.parametrize(
    ("before", "now", "tone", "begins", "changed"),
    [
        (20, 50, "good", "Better than the previous run (before)", "30 images fixed, 0 broken"),
        (50, 20, "warn", "Worse than the previous run (before)", "0 images fixed, 30 broken"),
    ],
)
def test_the_previous_run_is_the_one_that_was_before(
    before: int, now: int, tone: str, begins: str, changed: str, tmp_path: Path
) -> None:
    write_answers(tmp_path / "before", before)
    write_answers(tmp_path / "now", now)

    split = replace(
        make_split(), predictions=read_source(tmp_path / "now/evaluation/test/predictions.csv", "")
    )
    (tmp_path / "before/run.json").write_text('{"schema_version": 1}')
    note = verdict_of(make_data(tmp_path / "now", split), tmp_path / "before").notes[1]

    assert note.tone == tone
    assert note.text.startswith(begins)
    assert changed in note.text


def test_confusions_are_listed_by_count_as_shares_of_the_true_class() -> None:
    matrix = matrix_of(make_split())

    pairs = [(pair.row, pair.column, pair.count, pair.share) for pair in matrix.pairs]
    assert pairs == [
        (0, 1, 4, pytest.approx(4 / 6)),
        (1, 0, 1, pytest.approx(1 / 3)),  # of as many, the larger share first
        (0, 2, 1, pytest.approx(1 / 6)),
    ]
    assert {(cell.row, cell.column): cell.strength for cell in matrix.cells} == {
        (0, 0): 0.408, (0, 1): 0.816, (0, 2): 0.408, (1, 0): 0.577, (1, 1): 0.816,
    }  # fmt: skip


def test_the_gallery_begins_with_the_surest_mistakes_and_the_closest_answers(
    tmp_path: Path,
) -> None:
    split = make_split()
    gallery = gallery_of(make_data(tmp_path, split), split, Pictures({}, 0, 0))

    assert [tile.path for tile in gallery.worst] == [f"{row}.png" for row in (4, 1, 6, 3, 0, 2)]
    assert [tile.path for tile in gallery.unsure][:3] == ["7.png", "5.png", "2.png"]


def test_an_image_behind_a_cell_is_shown_with_its_own_picture() -> None:
    pictures = Pictures({f"{row}.png": f"data:{row}" for row in range(9) if row != 6}, 1, 0)

    behind = behind_cells(make_split(), pictures)

    shown = {
        path: behind["pictures"][picture] if picture >= 0 else None
        for _, _, _, path, picture in behind["images"]
    }
    assert shown == {f"{row}.png": None if row == 6 else f"data:{row}" for row in range(9)}


def test_curves_count_epochs_from_one_and_mark_the_best(tmp_path: Path) -> None:
    curves = curves_of(make_data(tmp_path, make_split()))

    assert curves is not None
    (loss,) = curves.charts
    assert loss.marks[0].text == "best: epoch 2"
    assert loss.marks[0].x == loss.x_ticks[1].at
    assert [row[0] for row in curves.table.rows] == ["1", "2 (best)", "3", "4"]


def test_classes_are_listed_worst_first_with_what_they_are_taken_for(tmp_path: Path) -> None:
    split = make_split()

    rows = classes_of(make_data(tmp_path, split), split)

    assert [(row.name, row.mostly, row.mostly_count) for row in rows] == [
        ("a", "b", 4),
        ("b", "a", 1),  # though more of b's images are right
        ("c", "", 0),  # not measured: last
    ]
