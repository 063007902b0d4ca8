"""A run and its predictions in a notebook: scores with intervals, and a confusion plot."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from classifier_training.metrics.intervals import wilson

if TYPE_CHECKING:
    from classifier_training.run.predictions import Predictions
    from classifier_training.run.reader import Run

_SHOWN = ("acc_top1", "acc_macro", "f1_macro", "loss")


def run_html(run: Run) -> str:
    """Return a table of the scores of a run, and the confusion matrix of its reported split."""
    rows = [
        (split, f"{run.metrics(split)['images']:,}", *map(_estimate, _scores(run, split)))
        for split in filter(run.is_evaluated, ("val", "test"))
    ]
    title = f"{run.path.name}: {run.record['status']}"
    if not rows:
        return f"<p>{escape(title)}, not evaluated yet</p>"
    split = run.reported_split
    plot = run.folder.evaluation(split) / "confusion_matrix.png"
    return (
        f"<p>{escape(title)}</p>"
        + _table(("split", "images", *_SHOWN), rows)
        + (_image(plot) if plot.is_file() else predictions_plot(run.predictions(split)))
    )


def predictions_html(predictions: Predictions) -> str:
    """Return the accuracy with its 95 % interval, and the confusion matrix."""
    right, images = int((~predictions.wrong).sum()), len(predictions)
    found = wilson(right, images)
    row = (f"{images:,}", f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")
    return (
        f"<p>{escape(predictions.name)}</p>"
        + _table(("images", "acc_top1"), [row])
        + predictions_plot(predictions)
    )


def predictions_plot(predictions: Predictions) -> str:
    """Draw the confusion matrix as an inline image."""
    from classifier_training.plots.confusion import draw_confusion

    classes = len(predictions.classes)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (predictions.true, predictions.predicted), 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "confusion.png"
        draw_confusion(counts, predictions.classes, path)
        return _image(path)


def _scores(run: Run, split: str) -> Iterable[dict[str, float] | None]:
    metrics = run.metrics(split)["metrics"]
    return [metrics.get(name) for name in _SHOWN]


def _estimate(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table><p>brackets: 95 % interval</p>"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    source = f"data:image/png;base64,{data}"
    return f'<img alt="confusion matrix" style="max-width: 40em" src="{source}">'
