"""``classifier suspects``: from runs to a table that goes back into training."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from classifier_training.cli.main import app
from classifier_training.data.index import index_data
from classifier_training.evaluation.label_errors import COLUMNS, find_label_errors
from classifier_training.evaluation.label_evidence import KINDS
from classifier_training.run.reader import Run
from tests.helpers.config import data_config
from tests.helpers.data import class_image, write_folder
from tests.helpers.runs import tiny_train

NAMES = ("0", "00", "1e3", "NO")


def _suspects(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["suspects", *map(str, arguments)])


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / "suspects.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return list(reader)


def _mislabelled(root: Path) -> dict[str, str]:
    """Put pictures of the next class into each class folder of train; return what they show."""
    wrong = {}
    for position, name in enumerate(NAMES):
        shown = (position + 1) % 4
        path = f"train/{name}/wrong.png"
        class_image(shown, 5000 + position).save(root / path)
        wrong[path] = NAMES[shown]
    return wrong


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, str]]:
    """A run on data with one wrong label a class, and those. Copies of it may be written into."""
    root = write_folder(tmp_path_factory.mktemp("noisy") / "images")
    wrong = _mislabelled(root)
    shutil.copy(root / "train/0/wrong.png", root / "train/0/copy.png")
    wrong["train/0/copy.png"] = wrong["train/0/wrong.png"]
    return tiny_train(root, root.parent / "run", "trainer.max_epochs=6"), wrong


@pytest.mark.promise("D13")
def test_wrong_labels_come_first(noisy: tuple[Run, dict[str, str]], tmp_path: Path) -> None:
    run, wrong = noisy
    before = {path: path.read_bytes() for path in run.folder.path.parent.rglob("*.png")}

    result = _suspects(run.folder.path, "--out", tmp_path)

    assert result.exit_code == 0, result.output
    rows = _table(tmp_path)
    first = {row["path"]: row for row in rows[: len(wrong)]}
    assert first.keys() == wrong.keys()
    assert all(first[path]["predicted"] == shown for path, shown in wrong.items())
    assert all(row["suspect"] == "yes" for row in first.values())
    assert {row["evidence"] for row in first.values()} == {"neighbours"}
    assert [row["rank"] for row in rows] == [str(n + 1) for n in range(len(rows))]
    copies = {path for path, row in first.items() if row["duplicate_group"]}
    assert copies == {"train/0/wrong.png", "train/0/copy.png"}
    assert Image.open(tmp_path / "suspects.png").format == "PNG"
    assert "Nothing was changed" in result.stdout
    assert before.items() <= {p: p.read_bytes() for p in before}.items()


@pytest.mark.promise("D14")
def test_the_filled_in_table_corrects_the_next_run(
    noisy: tuple[Run, dict[str, str]], tmp_path: Path
) -> None:
    run, wrong = noisy
    assert _suspects(run.folder.path, "--out", tmp_path).exit_code == 0
    rows = _table(tmp_path)
    for row in rows:
        row["corrected"] = wrong.get(row["path"], "")
    with (tmp_path / "suspects.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)

    root = Path(run.record["data_root"])
    index = index_data(data_config(root, corrections=str(tmp_path / "suspects.csv")))
    manifest = index.manifest
    labels = {
        path: manifest.class_map.names[manifest.labels[row]]
        for row, path in enumerate(manifest.paths)
    }
    assert {path: labels[path] for path in wrong} == wrong

    again = _suspects(run.folder.path, "--out", tmp_path)
    assert again.exit_code == 2
    assert f"holds {len(wrong)} corrections made by hand" in again.output
    assert _table(tmp_path) == rows


@pytest.mark.slow
def test_every_image_is_judged_once_by_the_runs_of_a_cross_validation(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_folder(root, counts={"train": 10})
    wrong = _mislabelled(root)
    shutil.move(root / "train", tmp_path / "flat")
    runs = [
        tiny_train(
            tmp_path / "flat",
            tmp_path / f"run{fold}",
            "data.split.folds=3",
            "data.split.test=0.0",
            f"data.split.fold={fold}",
            "trainer.max_epochs=8",
        )
        for fold in range(3)
    ]

    errors = find_label_errors([run.folder.path for run in runs], out=tmp_path / "out")

    assert len(errors.rows) == len(errors.manifest)
    assert errors.unjudged == 0
    rows = _table(tmp_path / "out")
    assert {row["evidence"] for row in rows} == {"out-of-fold"}
    top = {f"train/{row['path']}" for row in rows[: len(wrong)]}
    assert len(top & wrong.keys()) >= 3

    alone = find_label_errors([runs[0].folder.path], out=tmp_path / "alone")
    assert {row["evidence"] for row in _table(tmp_path / "alone")} <= {"held-out", "neighbours"}
    assert len(alone.rows) == len(errors.rows)


@pytest.mark.promise("D13")
def test_a_network_that_knows_its_labels_by_heart_is_told(
    noisy: tuple[Run, dict[str, str]], tmp_path: Path
) -> None:
    errors = find_label_errors([noisy[0].folder.path], out=tmp_path)
    assert not errors.memorised

    # As if features agreed with every training label, and predictions with 90 % of the others.
    labels = errors.manifest.labels[errors.rows]
    held_out = np.flatnonzero(errors.kinds == KINDS.index("held-out"))
    predicted = labels.copy()
    predicted[held_out[: len(held_out) // 10]] ^= 1
    suspicion = replace(errors.suspicion, predicted=predicted)

    assert "by heart" in replace(errors, suspicion=suspicion).memorised


def _copy(run: Run, folder: Path) -> Path:
    shutil.copytree(run.folder.path, folder)
    return folder


def test_refusals_name_the_thing_and_write_nothing(tiny_run: Run, tmp_path: Path) -> None:
    assert _suspects(tmp_path).exit_code == 6

    bare = _copy(tiny_run, tmp_path / "bare")
    (bare / "evaluation/val/predictions.csv").unlink()
    result = _suspects(bare)
    assert result.exit_code == 3
    assert f"classifier evaluate {bare} --split val" in result.output
    assert not (bare / "suspects").exists()

    moved = _copy(tiny_run, tmp_path / "moved")
    result = _suspects(moved, "--data-root", tmp_path / "nowhere")
    assert result.exit_code == 3
    assert "--data-root PATH" in result.output

    assert _suspects(moved, "--device", "cuda:99").exit_code == 2
    assert not (moved / "suspects").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("val/0/000.png,0,", "val/0/000.png,00,", "are not those of the run's manifest"),
        ("val/0/000.png,", "val/0/xxx.png,", "are not those of the run's manifest"),
        ("prob:NO", "prob:YES", "its columns prob:CLASS"),
    ],
)
def test_predictions_of_other_data_are_refused(
    tiny_run: Run, tmp_path: Path, old: str, new: str, said: str
) -> None:
    run = _copy(tiny_run, tmp_path / "run")
    file = run / "evaluation/val/predictions.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))

    result = _suspects(run)

    assert result.exit_code == 3
    assert said in result.output


def test_probabilities_that_are_none_are_refused(tiny_run: Run, tmp_path: Path) -> None:
    run = _copy(tiny_run, tmp_path / "run")
    file = run / "evaluation/test/predictions.csv"
    rows = list(csv.reader(file.open(newline="")))
    for cell in ("nan", "x", "7"):
        rows[1][-1] = cell
        with file.open("w", newline="") as out:
            csv.writer(out).writerows(rows)
        result = _suspects(run)
        assert result.exit_code == 3
        assert str(file) in result.output


def test_runs_of_other_data_are_refused(
    tiny_run: Run, noisy: tuple[Run, dict[str, str]], tmp_path: Path
) -> None:
    result = _suspects(tiny_run.folder.path, noisy[0].folder.path, "--out", tmp_path / "out")

    assert result.exit_code == 3
    assert "train/0/copy.png differs" in result.output
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be_made_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = _suspects(tiny_run.folder.path, "--out", tmp_path / "file" / "out")

    assert result.exit_code == 2
    assert "cannot make the folder" in result.output
