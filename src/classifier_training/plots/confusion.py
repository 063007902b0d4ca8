"""The confusion matrix: readable with 2 classes, 43 or 300."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from classifier_training.plots.class_names import short_name
from classifier_training.plots.style import save_figure

# Above these many classes the cells, and then the names, are too small to be read.
_MOST_NUMBERS = 25
_MOST_NAMES = 60
_LONGEST_NAME = 18


def draw_confusion(confusion: npt.NDArray[np.int64], names: Sequence[str], path: Path) -> None:
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
    shown_names = [short_name(names[index], _LONGEST_NAME) for index in ticks]
    size = float(np.clip(11 - classes / 12, 6, 10)) if step == 1 else 7.0
    longest = max(map(len, shown_names))
    axes.set_xticks(
        ticks, shown_names, fontsize=size, rotation=90 if longest > 3 else 0, parse_math=False
    )
    axes.set_yticks(ticks, shown_names, fontsize=size, parse_math=False)
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
    save_figure(figure, path)
