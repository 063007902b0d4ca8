"""``data/statistics.png``: class counts, image sizes and brightness at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from classifier_training.plots.class_names import bar_width, name_classes, room_for_names
from classifier_training.plots.style import SPLIT_COLORS, save_figure

_WIDTH, _ROW = 12.0, 2.6  # inches
_IMAGE_FACTS = (
    ("width", "width (pixels)"),
    ("height", "height (pixels)"),
    ("aspect", "width / height"),
    ("brightness", "brightness (0..1)"),
)


def draw_statistics(statistics: dict[str, Any], path: Path) -> None:
    """Draw what :func:`classifier_training.data.statistics.statistics` returned.

    Args:
        statistics: With or without the facts of the images.
        path: The PNG to write, atomically.
    """
    splits = statistics["splits"]
    has_images = any("width" in content for content in splits.values())
    heights = [_ROW * len(splits), _ROW] if has_images else [_ROW * len(splits)]
    figure = Figure(figsize=(_WIDTH, sum(heights)))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    order = _order(splits)
    # Margins in inches: a layout that is found automatically gives up on many long names.
    bars = parts[0].subplots(len(splits), 1, squeeze=False)[:, 0]
    _set_margins(parts[0], heights[0], top=0.35, bottom=room_for_names(order), between=len(splits))
    for axes, (split, content) in zip(bars, splits.items(), strict=True):
        _draw_counts(axes, split, content, order)
    if has_images:
        _set_margins(parts[1], _ROW, top=0.15, bottom=0.55, between=1)
        cells = parts[1].subplots(1, len(_IMAGE_FACTS))
        for axes, (key, label) in zip(cells, _IMAGE_FACTS, strict=True):
            _draw_histogram(axes, splits, key, label)
    save_figure(figure, path, dpi=100)


def _set_margins(
    part: SubFigure, height: float, *, top: float, bottom: float, between: int
) -> None:
    """Leave ``top`` and ``bottom`` inches above and below each of ``between`` rows."""
    row = height / between - top - bottom
    part.subplots_adjust(
        left=0.07, right=0.985, top=1 - top / height, bottom=bottom / height,
        hspace=(top + bottom) / row, wspace=0.25,
    )  # fmt: skip


def _order(splits: dict[str, Any]) -> list[str]:
    """Return the class names, the most frequent in the first split first: one order for all."""
    counts: dict[str, int] = next(iter(splits.values()))["per_class"]
    return sorted(counts, key=lambda name: -counts[name])


def _draw_counts(axes: Axes, split: str, content: dict[str, Any], order: list[str]) -> None:
    counts = np.array([content["per_class"][name] for name in order])
    positions = np.arange(len(order))
    axes.bar(positions, counts, width=bar_width(order), color=SPLIT_COLORS[split])
    absent = positions[counts == 0]
    axes.plot(absent, np.zeros(len(absent)), "x", color="#D55E00", markersize=5, clip_on=False)
    axes.set_title(_caption(split, content, len(absent)), loc="left", fontsize=10)
    axes.set_ylabel("images")
    if len(counts) and counts.max() > 20 * max(1, int(np.median(counts))):
        axes.set_yscale("symlog", linthresh=1)  # so that rare classes can be seen at all
    name_classes(axes, order, "classes, the most frequent in train first")
    if len(order) <= 12:
        for position, count in enumerate(counts.tolist()):
            axes.text(position, count, f"{count:,}", ha="center", va="bottom", fontsize=8)
        axes.margins(y=0.15)


def _caption(split: str, content: dict[str, Any], absent: int) -> str:
    text = (
        f"{split}: {content['images']:,} images, {content['classes_present']} classes, "
        f"imbalance {content['imbalance_ratio']:.3g}, entropy {content['entropy_ratio']:.2f}"
    )
    return f"{text}, {absent} absent (x)" if absent else text


def _draw_histogram(axes: Axes, splits: dict[str, Any], key: str, label: str) -> None:
    """Draw one line a split, as shares: splits differ in size."""
    for split, content in splits.items():
        if key not in content:
            continue
        histogram = content[key]["histogram"]
        counts = np.array(histogram["counts"])
        axes.stairs(
            counts / counts.sum(),
            histogram["edges"],
            label=split,
            color=SPLIT_COLORS[split],
            lw=1.4,
        )
    axes.set_xlabel(label)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    if key == _IMAGE_FACTS[0][0]:
        axes.set_ylabel("share of images")
        axes.legend(fontsize=8, frameon=False)
