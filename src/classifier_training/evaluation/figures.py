"""Pictures of an evaluation: reliability, and risk against coverage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from classifier_training.evaluation.intervals import wilson
from classifier_training.evaluation.scores import Scores
from classifier_training.metrics.curves import ReliabilityBin
from classifier_training.plots.style import BLUE, GREY, RED, plain_axes, save_figure


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
