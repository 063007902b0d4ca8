"""The confusion matrix: readable with 2 classes, 43 or 300."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from classifier_training.plots.class_names import short_name
from classifier_training.plots.style import save_figure

# Above these many classes the cells, and then the names, are too small to be read.
_MOST_NUMBERS = 25
_MOST_NAMES = 60
_LONGEST_NAME = 18

# What a cell is shaded by, and what is written in it where there is room.
Cells = Literal["counts on shares", "counts", "shares"]


def draw_confusion(
    confusion: npt.NDArray[np.int64],
    names: Sequence[str],
    path: Path,
    cells: Cells = "counts on shares",
) -> None:
    """Draw ``(C, C)`` counts; empty cells are white.

    Args:
        confusion: Rows are truth.
        names: ``C`` class names.
        path: The PNG to write, atomically.
        cells: ``counts`` and ``shares`` (of the row) are both written and shaded;
            ``counts on shares`` writes counts and shades by share.
    """
    classes = len(confusion)
    step = 1 if classes <= _MOST_NAMES else -(-classes // 30)
    places = list(range(0, classes, step))
    shown = [short_name(names[index], _LONGEST_NAME) for index in places]
    size = float(np.clip(11 - classes / 12, 6, 10)) if step == 1 else 7.0
    axes = _square(classes, size * max(map(len, shown)) * 0.6 / 72, max(map(len, shown)) > 3)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    values = confusion if cells == "counts" else shares
    darkness = _shade(axes, values, cells)
    # A class may be called "$x$"; that is no formula.
    turned = 90 if max(map(len, shown)) > 3 else 0
    axes.set_xticks(places, shown, fontsize=size, rotation=turned, parse_math=False)
    axes.set_yticks(places, shown, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true" + (f" (every {step}th class named)" if step > 1 else ""))
    if step == 1:
        edges = np.arange(-0.5, classes)
        axes.vlines(edges, -0.5, classes - 0.5, color="#e6e8eb", lw=0.5)
        axes.hlines(edges, -0.5, classes - 0.5, color="#e6e8eb", lw=0.5)
    if classes <= _MOST_NUMBERS:
        for row, column in np.argwhere(confusion):
            written = (
                f"{100 * shares[row, column]:.0f}"
                if cells == "shares"
                else f"{confusion[row, column]:,}"
            )
            color = "white" if darkness[row, column] > 0.5 else "black"
            axes.text(
                column, row, written, ha="center", va="center", fontsize=size, color=color,
                clip_on=True,
            )  # fmt: skip
    hits, total = int(confusion.diagonal().sum()), int(confusion.sum())
    unit = ", cells in % of the class" if cells == "shares" and classes <= _MOST_NUMBERS else ""
    axes.set_title(f"{hits:,} of {total:,} right{unit}", fontsize=11)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    save_figure(figure, path)


def _square(classes: int, longest: float, is_turned: bool) -> Axes:
    """Return the axes of a matrix; margins are set, because finding them costs a second.

    Args:
        classes: Number of cells on a side.
        longest: Width of the longest class name, in inches.
        is_turned: Whether the names below stand upright.
    """
    side = float(np.clip(2.2 + 0.2 * classes, 3.6, 12.5))
    left, bottom, top, right = longest + 0.5, (longest if is_turned else 0.2) + 0.5, 0.4, 1.0
    width, height = left + side + right, bottom + side + top
    figure = Figure(figsize=(width, height))
    return figure.add_axes((left / width, bottom / height, side / width, side / height))


def _shade(
    axes: Axes, values: npt.NDArray[np.int64] | npt.NDArray[np.float64], cells: Cells
) -> npt.NDArray[np.float64]:
    """Shade the cells, add the scale beside them, and return how dark each is: ``(C, C)``, 0..1."""
    largest = max(2.0, float(values.max(initial=0)))
    norm = LogNorm(0.7, largest) if cells == "counts" else Normalize(0, 1)
    masked = np.ma.masked_equal(values, 0)
    shown = axes.imshow(masked, cmap="Blues", norm=norm, interpolation="nearest")
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    box = axes.get_position()
    width = figure.get_figwidth()
    beside = figure.add_axes((box.x1 + 0.12 / width, box.y0, 0.18 / width, box.height))
    bar = figure.colorbar(shown, cax=beside)
    bar.set_label("images" if cells == "counts" else "share of the class")
    if cells == "counts":
        # Matplotlib's own ticks of a short log scale are 6e-1 and the like.
        ticks = [tick for tick in (1, 2, 5, 10, 30, 100, 1000, 10**4, 10**5) if tick <= largest]
        bar.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks])
        bar.minorticks_off()
    dark: npt.NDArray[np.float64] = np.ma.filled(norm(masked), 0.0)
    return dark
