"""``plots/samples/epoch=NNNN.png``: validation images with truth, prediction and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from classifier_training.plots.class_names import short_name
from classifier_training.plots.style import RED, save_figure

_COLUMNS = 8
_GREEN = "#2e7d4f"
_PIXELS = 144  # side of a picture
_GAP = 10
_ABOVE = 34  # pixels for two lines of text
_TITLE = 34
_DPI = 110
_LONGEST = 16


@dataclass(frozen=True)
class Sample:
    """One picture.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, what the network was given.
        true: Name of its class.
        predicted: Name of the class that the network gives it.
        confidence: Probability of that, 0..1.
    """

    pixels: npt.NDArray[np.uint8]
    true: str
    predicted: str
    confidence: float


def draw_samples(parts: Sequence[tuple[str, Sequence[Sample]]], path: Path) -> None:
    """Draw parts below each other, each with a title.

    All pictures are one image in one pair of axes: axes for each would take seconds.

    Args:
        parts: Title and pictures; a part without pictures is left with its title.
        path: The PNG to write, atomically.
    """
    columns = min(_COLUMNS, max(4, *(len(samples) for _, samples in parts)))
    rows = [-(-len(samples) // columns) for _, samples in parts]
    cell = _PIXELS + _ABOVE + _GAP
    width = columns * (_PIXELS + _GAP) + _GAP
    height = sum(_TITLE + count * cell for count in rows) + _GAP
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    figure = Figure(figsize=(width / _DPI, height / _DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    top = 0
    for (title, samples), count in zip(parts, rows, strict=True):
        # A class may be called "$x$"; that is no formula.
        axes.text(_GAP, top + 8, title, fontsize=10, fontweight="bold", va="top", parse_math=False)
        for number, sample in enumerate(samples):
            row, column = divmod(number, columns)
            left = _GAP + column * (_PIXELS + _GAP)
            _place(axes, canvas, sample, left, top + _TITLE + row * cell)
        top += _TITLE + count * cell
    axes.imshow(canvas, interpolation="nearest", extent=(0, width, height, 0), aspect="auto")
    axes.set_axis_off()
    save_figure(figure, path, dpi=_DPI)


def _place(axes: Axes, canvas: npt.NDArray[np.uint8], sample: Sample, left: int, top: int) -> None:
    image = Image.fromarray(sample.pixels).resize((_PIXELS, _PIXELS), Image.Resampling.BILINEAR)
    canvas[top + _ABOVE : top + _ABOVE + _PIXELS, left : left + _PIXELS] = np.asarray(image)
    is_right = sample.true == sample.predicted
    color = _GREEN if is_right else RED
    axes.add_patch(
        Rectangle((left, top + _ABOVE), _PIXELS, _PIXELS, fill=False, edgecolor=color, lw=2)
    )
    first = short_name(sample.true, _LONGEST)
    confidence = f"{100 * sample.confidence:.0f} %"
    second = short_name(sample.predicted, _LONGEST - 2)
    # A class may be called "35": its confidence stands in brackets.
    answer = confidence if is_right else f"→ {second} ({confidence})"
    for text, line in ((first, 0), (answer, 1)):
        axes.text(
            left, top + 3 + 15 * line, text, fontsize=7.5, va="top", parse_math=False,
            color="black" if line == 0 else color,
        )  # fmt: skip
