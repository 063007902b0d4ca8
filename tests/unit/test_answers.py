"""What compare reads: predictions.csv of evaluate, of strangers, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss

from classifier_training.errors import DataError
from classifier_training.evaluation.predictions import read_source
from tests.helpers.answers import write_predictions_csv

pytestmark = pytest.mark.promise("N2")

CLASSES = ("0", "00", "NO, «é»", "1e3")


def test_what_evaluate_writes_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 30)
    probabilities = rng.dirichlet(np.ones(4), 30).astype(np.float32)
    paths = [f"val/{row:02d} \udcff,\n.png" for row in rng.permutation(30)]
    file = write_predictions_csv(tmp_path / "predictions.csv", paths, true, probabilities, CLASSES)

    found = read_source(file, "test")

    order = np.argsort(paths)
    assert found.paths == tuple(sorted(paths))
    assert found.classes == CLASSES
    assert found.true.tolist() == true[order].tolist()
    assert found.predicted.tolist() == probabilities.argmax(axis=1)[order].tolist()
    assert found.losses is not None
    expected = log_loss(true, probabilities.astype(np.float64), labels=range(4))
    assert found.losses.mean() == pytest.approx(expected, abs=1e-6)


def test_a_probability_of_zero_is_a_large_loss_and_no_infinity(tmp_path: Path) -> None:
    probabilities = np.array([[1, 0]], dtype=np.float32)
    file = write_predictions_csv(
        tmp_path / "p.csv", ["x"], np.array([1]), probabilities, ("a", "b")
    )

    losses = read_source(file, "test").losses

    assert losses is not None
    assert 80 < losses[0] < 90


def test_a_table_without_probabilities_has_no_losses(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("true,predicted,path\nb,a,2.png\na,a,1.png\n")

    found = read_source(file, "test")

    assert (found.paths, found.classes, found.losses) == (("1.png", "2.png"), ("a", "b"), None)


def test_groups_come_from_the_runs_manifest(tmp_path: Path) -> None:
    write_predictions_csv(
        tmp_path / "run/evaluation/val/predictions.csv",
        ["b", "a", "c"],
        np.array([0, 1, 1]),
        np.full((3, 2), 0.5, np.float32),
        ("x", "y"),
    )
    (tmp_path / "run/run.json").write_text('{"schema_version": 1}')
    manifest = tmp_path / "run/data/manifest.csv"
    manifest.parent.mkdir()
    manifest.write_text("path,label,split,group\na,y,val,film 1\nb,x,val,\nc,y,val,film 1\n")

    assert read_source(tmp_path / "run", "val").groups == ("film 1", "", "film 1")
    manifest.write_text("path,label,split\na,y,val\nb,x,val\nc,y,val\n")
    assert read_source(tmp_path / "run", "val").groups is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no column path, true, predicted"),
        ("path,predicted,confidence\nx,a,1\n", "no column true"),
        ("path,true,predicted\n", "has no rows"),
        ("path,true,predicted\nx,a\n", "row 2 has not the 3 columns"),
        ("path,true,predicted\nx,a,b\nx,a,b\n", "lists x twice"),
        ('path,true,predicted\n"x,a,b\n', "cannot read"),
        ("path,true,predicted,prob:a\nx,a,a,many\n", "not a number"),
        ("path,true,predicted,prob:a\nx,a,a,nan\n", "probability nan"),
        ("path,true,predicted,prob:a\nx,a,a,1.5\n", "probability 1.5"),
        ("path,true,predicted,prob:a\nx,a,a,-0.1\n", "probability -0.1"),
        ("\0\x01PNG", "cannot read"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "p.csv"
    file.write_text(content)

    with pytest.raises(DataError, match=r"p\.csv") as caught:
        read_source(file, "test")
    assert told in str(caught.value)


def test_missing_files_name_the_command_that_makes_them(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text('{"schema_version": 1}')

    with pytest.raises(DataError, match=r"no evaluation/test/predictions\.csv") as caught:
        read_source(tmp_path / "run", "test")
    assert f"classifier evaluate {tmp_path / 'run'} --split test" in caught.value.fix
    with pytest.raises(DataError, match=r"no\.csv"):
        read_source(tmp_path / "no.csv", "test")
