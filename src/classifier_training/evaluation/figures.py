"""Pictures of an evaluation: confusion matrix, reliability, risk against coverage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from classifier_training.evaluation.intervals import wilson
from classifier_training.evaluation.scores import Scores
from classifier_training.metrics.curves import ReliabilityBin
from classifier_training.runtime.class_map import ClassMap
from classifier_training.runtime.files import replacing

_DPI = 110
_BLUE, _GREY, _RED = "#1f5fa8", "#8a8f98", "#c23b22"

# Above these many classes the cells, and then the names, are too small to be read.
_MOST_NUMBERS = 25
_MOST_NAMES = 60
_LONGEST_NAME = 18


def save_confusion(path: Path, confusion: npt.NDArray[np.int64], class_map: ClassMap) -> None:
    """Draw ``(C, C)`` counts, each row shaded by its share of the class; empty cells are white."""
    classes = len(confusion)
    side = float(np.clip(2.8 + 0.2 * classes, 5.0, 14.0))
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.add_subplot()
    support = confusion.sum(axis=1, keepdims=True)
    shares = np.ma.masked_equal(confusion / np.maximum(support, 1), 0.0)
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("share of the class")
    step = 1 if classes <= _MOST_NAMES else -(-classes // 30)
    ticks = list(range(0, classes, step))
    names = [_short(class_map.names[index]) for index in ticks]
    size = float(np.clip(11 - classes / 12, 6, 10)) if step == 1 else 7.0
    longest = max(map(len, names))
    axes.set_xticks(
        ticks, names, fontsize=size, rotation=90 if longest > 3 else 0, parse_math=False
    )
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true" + (f" (every {step}th class named)" if step > 1 else ""))
    if step == 1:
        axes.set_xticks(np.arange(-0.5, classes), minor=True)
        axes.set_yticks(np.arange(-0.5, classes), minor=True)
        axes.grid(which="minor", color="#e6e8eb", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
    if classes <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                dark = count / support[row, 0] > 0.5
                axes.text(
                    column, row, f"{count:,}", ha="center", va="center", fontsize=size,
                    color="white" if dark else "black",
                )  # fmt: skip
    hits, total = int(confusion.diagonal().sum()), int(confusion.sum())
    axes.set_title(f"{hits:,} of {total:,} right", fontsize=11)
    _save(figure, path)


def save_reliability(path: Path, bins: list[ReliabilityBin], scores: Scores) -> None:
    """Draw accuracy by confidence with 95 % intervals, and how many images each bin holds."""
    figure = Figure(figsize=(5.4, 6.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfect calibration")
    estimates = [wilson(item.hits, item.images) for item in bins]
    middle = [item.confidence for item in bins]
    values = np.array([item.value for item in estimates])
    bars = [
        values - [item.low for item in estimates],
        [item.high for item in estimates] - values,
    ]
    top.errorbar(
        middle, values, yerr=np.maximum(bars, 0), fmt="o", color=_BLUE, markersize=5, capsize=2,
        linewidth=1.2, label="accuracy, 95 % interval",
    )  # fmt: skip
    top.set_ylabel("accuracy")
    top.set_ylim(-0.02, 1.02)
    top.set_title(f"expected calibration error {scores.estimates['ece']}", fontsize=11)
    top.legend(loc="upper left", frameon=False, fontsize=9)
    lows = [item.low for item in bins]
    widths = [item.high - item.low for item in bins]
    bottom.bar(lows, [item.images for item in bins], widths, align="edge", color=_BLUE, alpha=0.6)
    bottom.set_ylabel("images")
    bottom.set_xlabel("confidence (uncalibrated)")
    bottom.set_xlim(0, 1)
    for axes in (top, bottom):
        _plain(axes)
    _save(figure, path)


def save_risk_coverage(path: Path, scores: Scores) -> None:
    """Draw the error rate of the most confident share of the answers."""
    curve = scores.curve
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        curve.coverage,
        curve.risk,
        color=_BLUE,
        drawstyle="steps-post",
        label="most confident first",
    )
    error = 1 - scores.estimates["acc_top1"].value
    axes.axhline(
        error, color=_GREY, linestyle="--", linewidth=1, label=f"random order ({error:.3f})"
    )
    best = np.maximum(0.0, 1 - (1 - error) / np.maximum(curve.coverage, 1e-9))
    axes.plot(curve.coverage, best, color=_RED, linewidth=1, label="errors last (best possible)")
    axes.set_xlabel("coverage: share of images that are answered")
    axes.set_ylabel("risk: share of wrong answers")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(0.02, 1.1 * max(error, float(curve.risk.max()))))
    axes.set_title(f"area under the curve {curve.area:.4f}", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    _plain(axes)
    _save(figure, path)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)


def _short(name: str) -> str:
    # What no font can draw would only be warned of.
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})
