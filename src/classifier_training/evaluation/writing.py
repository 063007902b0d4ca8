"""The files of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from classifier_training.data.manifest import Manifest
from classifier_training.evaluation.scores import Scores
from classifier_training.evaluation.slices import Slice
from classifier_training.inference.agreement import softmax
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.prediction_files import write_evaluated
from classifier_training.metrics.curves import ReliabilityBin, RiskCoverage, reliability_bins
from classifier_training.metrics.intervals import wilson
from classifier_training.plots.confusion import draw_confusion
from classifier_training.plots.style import BLUE, GREY, RED, plain_axes, save_figure
from classifier_training.system.files import replacing, write_json
from classifier_training.system.tables import write_table


def save_reliability(path: Path, bins: list[ReliabilityBin], scores: Scores) -> None:
    """Draw accuracy by confidence with 95 % intervals, and how many images each bin holds."""
    figure = Figure(figsize=(5.4, 6.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    estimates = [wilson(item.hits, item.images) for item in bins]
    middle = [item.confidence for item in bins]
    values = np.array([item.value for item in estimates])
    bars = [
        values - [item.low for item in estimates],
        [item.high for item in estimates] - values,
    ]
    top.errorbar(
        middle, values, yerr=np.maximum(bars, 0), fmt="o", color=BLUE, markersize=5, capsize=2,
        linewidth=1.2, label="accuracy, 95 % interval",
    )  # fmt: skip
    top.set_ylabel("accuracy")
    top.set_ylim(-0.02, 1.02)
    top.set_title(f"expected calibration error {scores.estimates['ece']}", fontsize=11)
    top.legend(loc="upper left", frameon=False, fontsize=9)
    lows = [item.low for item in bins]
    widths = [item.high - item.low for item in bins]
    bottom.bar(lows, [item.images for item in bins], widths, align="edge", color=BLUE, alpha=0.6)
    bottom.set_ylabel("images")
    bottom.set_xlabel("confidence (uncalibrated)")
    bottom.set_xlim(0, 1)
    for axes in (top, bottom):
        plain_axes(axes)
    save_figure(figure, path)


def save_risk_coverage(path: Path, scores: Scores) -> None:
    """Draw the error rate of the most confident share of the answers."""
    curve = scores.curve
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        curve.coverage,
        curve.risk,
        color=BLUE,
        drawstyle="steps-post",
        label="most confident first",
    )
    error = 1 - scores.estimates["acc_top1"].value
    axes.axhline(
        error, color=GREY, linestyle="--", linewidth=1, label=f"random order ({error:.3f})"
    )
    best = np.maximum(0.0, 1 - (1 - error) / np.maximum(curve.coverage, 1e-9))
    axes.plot(curve.coverage, best, color=RED, linewidth=1, label="errors last (best possible)")
    axes.set_xlabel("coverage: share of images that are answered")
    axes.set_ylabel("risk: share of wrong answers")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(0.02, 1.1 * max(error, float(curve.risk.max()))))
    axes.set_title(f"area under the curve {curve.area:.4f}", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    plain_axes(axes)
    save_figure(figure, path)


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
    write_table(folder / "per_class.csv", list(per_class[0]), (row.values() for row in per_class))
    write_table(
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
    write_table(
        folder / "reliability.csv",
        ("confidence_low", "confidence_high", "images", "mean_confidence", "accuracy"),
        (
            (f"{bar.low:.6f}", f"{bar.high:.6f}", bar.images, f"{bar.confidence:.6f}",
             f"{bar.accuracy:.6f}")
            for bar in bins
        ),
    )  # fmt: skip
    curve = scores.curve
    write_table(
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
    write_table(
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


def _text(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
