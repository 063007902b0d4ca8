"""The files of an evaluation."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from classifier_training.data.manifest import Manifest
from classifier_training.evaluation.figures import (
    save_reliability,
    save_risk_coverage,
)
from classifier_training.evaluation.scores import Scores
from classifier_training.evaluation.slices import Slice
from classifier_training.metrics.curves import RiskCoverage, reliability_bins
from classifier_training.plots.confusion import draw_confusion
from classifier_training.runtime.agreement import softmax
from classifier_training.runtime.class_map import ClassMap
from classifier_training.runtime.files import replacing, write_json
from classifier_training.runtime.prediction_files import write_evaluated

# More points than pixels show nothing.
_MOST_POINTS = 1000


def write_files(
    folder: Path,
    content: dict[str, Any],
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
    scores: Scores,
    slices: Sequence[Slice],
) -> None:
    """Write all files of an evaluation; see ``docs/evaluation.md``.

    Each is replaced atomically; ``metrics.json`` comes last, so that where it is, all are.

    Args:
        folder: Exists.
        content: Of ``metrics.json``.
        manifest: Where the images are.
        rows: ``(N,)`` manifest indices.
        logits: ``(N, C)`` float32.
        scores: What follows from them.
        slices: Worst first.
    """
    (folder / "metrics.json").unlink(missing_ok=True)  # what it vouched for is being replaced
    class_map = manifest.class_map
    with replacing(folder / "predictions.csv") as path, _text(path) as file:
        write_evaluated(
            file,
            class_map,
            (manifest.paths[int(row)] for row in rows),
            manifest.labels[rows],
            softmax(logits),
        )
    per_class = scores.per_class_rows(class_map)
    _write_table(folder / "per_class.csv", list(per_class[0]), (row.values() for row in per_class))
    _write_table(
        folder / "confusion_matrix.csv",
        ("true \\ predicted", *class_map.names),
        (
            (name, *(int(count) for count in row))
            for name, row in zip(class_map.names, scores.confusion, strict=True)
        ),
    )
    _write_curves(folder, scores)
    _write_slices(folder / "slices.csv", slices)
    _draw(folder, scores, class_map)
    write_json(folder / "metrics.json", content)


def _write_curves(folder: Path, scores: Scores) -> None:
    bins = reliability_bins(scores.calibration)
    _write_table(
        folder / "reliability.csv",
        ("confidence_low", "confidence_high", "images", "mean_confidence", "accuracy"),
        (
            (f"{bar.low:.6f}", f"{bar.high:.6f}", bar.images, f"{bar.confidence:.6f}",
             f"{bar.accuracy:.6f}")
            for bar in bins
        ),
    )  # fmt: skip
    curve = scores.curve
    _write_table(
        folder / "risk_coverage.csv",
        ("confidence", "coverage", "risk"),
        (
            (f"{curve.thresholds[at]:.9g}", f"{curve.coverage[at]:.6f}", f"{curve.risk[at]:.6f}")
            for at in _points(curve)
        ),
    )


def _points(curve: RiskCoverage) -> npt.NDArray[np.int64]:
    last = len(curve.coverage) - 1
    return np.unique(np.linspace(0, last, min(last + 1, _MOST_POINTS)).round().astype(np.int64))


def _write_slices(path: Path, slices: Sequence[Slice]) -> None:
    _write_table(
        path,
        ("key", "value", "images", "acc_top1", "acc_top1_low", "acc_top1_high", "acc_top1_rest",
         "p_value_adjusted", "worse"),
        (
            (
                item.key,
                item.value,
                item.images,
                f"{item.accuracy.value:.6f}",
                f"{item.accuracy.low:.6f}",
                f"{item.accuracy.high:.6f}",
                f"{item.rest:.6f}",
                f"{item.p_value:.3g}",
                str(item.is_worse).lower(),
            )
            for item in slices
        ),
    )  # fmt: skip


def _draw(folder: Path, scores: Scores, class_map: ClassMap) -> None:
    draw_confusion(scores.confusion, class_map.names, folder / "confusion_matrix.png")
    save_reliability(folder / "reliability.png", reliability_bins(scores.calibration), scores)
    save_risk_coverage(folder / "risk_coverage.png", scores)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    with replacing(path) as temporary, _text(temporary) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _text(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
