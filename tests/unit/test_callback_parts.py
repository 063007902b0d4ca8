"""What callbacks are made of: tables that go on, choices, names of files, and pictures."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from classifier_training.callbacks.base import StepTable, epoch_name, keep_pictures
from classifier_training.callbacks.sample_visualization import choose
from classifier_training.metrics.from_confusion import most_confused
from classifier_training.plots import history
from classifier_training.plots.confusion import draw_confusion
from classifier_training.plots.history import draw_history
from classifier_training.plots.samples import Sample, draw_samples

HOSTILE = ["$x$", "<script>", "=cmd|' /C", 'a "quote", b', "W" * 200, "\ud800", "線形", "", "\n"]


def numbers(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.promise("N8")
def test_a_table_goes_on_where_the_run_does(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "table.csv"
    table = StepTable(path, ("step", "value"))
    table.go_on(0)
    for step in range(4):
        table.append({"step": step, "value": step / 3})
    with path.open("a") as file:
        file.write("4,1.3")  # the process was killed while it wrote

    again = StepTable(path, ("step", "value"))
    again.go_on(2)
    again.append({"step": 2, "value": None})

    assert numbers(path) == ["step,value", "0,0", "1,0.333333333", "2,"]
    assert [item.name for item in path.parent.iterdir()] == ["table.csv"]


def test_a_table_of_other_columns_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("epoch,other\n0,1\n")

    StepTable(path, ("step", "value")).go_on(5)

    assert numbers(path) == ["step,value"]


@pytest.mark.parametrize(
    ("most", "expected"), [(4, [1, 1, 1, 1]), (6, [1, 1, 2, 2]), (99, [1, 4, 4, 4])]
)
def test_samples_are_spread_over_the_classes(most: int, expected: list[int]) -> None:
    labels = np.repeat([0, 1, 2, 3], [1, 4, 4, 4])
    rows = np.arange(100, 113)

    chosen = choose(rows, labels, most, seed=7)

    assert sorted(np.bincount(labels[chosen], minlength=4)) == expected
    assert len(set(chosen.tolist())) == len(chosen)
    assert chosen.tolist() == choose(rows, labels, most, seed=7).tolist()
    assert any(chosen.tolist() != choose(rows, labels, 4, seed).tolist() for seed in range(5))


def test_pairs_are_ranked_by_their_errors() -> None:
    matrix = torch.tensor([[50, 5, 0], [5, 5, 1], [0, 7, 0]])

    # Of two equal counts the class with fewer images comes first.
    assert most_confused(matrix, 3) == [(2, 1), (1, 0), (0, 1)]
    assert most_confused(matrix, 9) == [(2, 1), (1, 0), (0, 1), (1, 2)]
    assert most_confused(torch.eye(3, dtype=torch.int64), 3) == []


def test_only_pictures_of_epochs_are_removed(tmp_path: Path) -> None:
    for epoch in range(5):
        for kind in (".png", "-normalised.png", ".csv"):
            (tmp_path / f"{epoch_name(epoch)}{kind}").touch()
    (tmp_path / "mine.png").touch()

    keep_pictures(tmp_path, 1, best_epoch=2)

    assert {path.name for path in tmp_path.glob("*.png")} == {
        "epoch=0002.png", "epoch=0002-normalised.png",
        "epoch=0004.png", "epoch=0004-normalised.png", "mine.png",
    }  # fmt: skip
    assert len(list(tmp_path.glob("*.csv"))) == 5


def rows_of(epochs: int) -> list[dict[str, float]]:
    names = [f"{split}/{name}" for split in ("train", "val", "val_raw")
             for name in ("loss", "acc_top1", "f1_macro")]  # fmt: skip
    return [
        {"epoch": epoch, "step": 9 * epoch, "lr": 0.1 / (1 + epoch)}
        | {name: (epoch + place) / 20 for place, name in enumerate(names)}
        for epoch in range(epochs)
    ]


@pytest.mark.promise("N8")
@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_the_curves_go_to_the_last_epoch_and_mark_the_best(
    epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(history, "save_figure", lambda figure, path: figures.append(figure))
    rows = rows_of(epochs)

    draw_history(rows, epochs // 2, "val/f1_macro", tmp_path / "history.png")

    loss, top1, f1, rate = figures[0].axes
    for axes, score in ((loss, "loss"), (top1, "acc_top1"), (f1, "f1_macro")):
        drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}
        for prefix, label in (
            ("train", "train (augmented)"), ("val", "val"), ("val_raw", "val, raw weights"),
        ):  # fmt: skip
            assert drawn[label] == [(row["epoch"], row[f"{prefix}/{score}"]) for row in rows]
        marked = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert [list(line.get_xdata()) for line in marked] == [[epochs // 2] * 2]
    assert list(rate.lines[0].get_xdata())[-1] == epochs - 1


@pytest.mark.promise("S2")
def test_pictures_of_few_and_of_many_classes_with_hostile_names(tmp_path: Path) -> None:
    names = (HOSTILE * 34)[:300]
    for classes in (2, len(HOSTILE), 43, 300):
        counts = np.eye(classes, dtype=np.int64) * 9
        counts[0, 1] = 3
        for cells in ("counts", "shares", "counts on shares"):
            draw_confusion(counts, names[:classes], tmp_path / "c.png", cells)
        with Image.open(tmp_path / "c.png") as picture:
            assert 400 < picture.width < 1800
            assert 400 < picture.height < 1800
    pixels = np.zeros((40, 30, 3), dtype=np.uint8)
    samples = [Sample(pixels, name, "x", 0.5) for name in HOSTILE]
    draw_samples([("above", samples), ("below", [])], tmp_path / "s.png")
    draw_confusion(np.zeros((2, 2), dtype=np.int64), names[:2], tmp_path / "e.png", "counts")
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > picture.height


def _resident_kib() -> int:
    """Return what this process holds, without what it only has not given back yet."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


@pytest.mark.slow
@pytest.mark.promise("N8")
@pytest.mark.parametrize("what", ["confusion", "samples", "history"])
def test_fifty_pictures_need_no_more_memory_than_ten(what: str, tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (43, 43))
    names = [f"class {number}" for number in range(43)]
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    sheet = [Sample(pixels, "a", "b", 0.5)] * 16
    path = tmp_path / "picture.png"
    draw: Callable[[], None] = {
        "confusion": lambda: draw_confusion(counts, names, path, "counts"),
        "samples": lambda: draw_samples([("one", sheet), ("two", sheet)], path),
        "history": lambda: draw_history(rows_of(50), 3, "val/f1_macro", path),
    }[what]
    for _ in range(10):
        draw()
    before = _resident_kib()

    for _ in range(50):
        draw()

    assert _resident_kib() - before < 12 * 1024, "less than two pictures' worth of canvas"
