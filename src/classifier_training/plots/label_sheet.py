"""A contact sheet: small pictures with the label they have and the one they may deserve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from classifier_training.inference.images import read_image
from classifier_training.plots.class_names import short_name
from classifier_training.plots.style import save_figure

_COLUMNS = 8
_INCHES = 1.5
_PIXELS = 160


@dataclass(frozen=True)
class Thumbnail:
    """One picture of the sheet.

    Attributes:
        file: The image.
        given: Its label.
        predicted: What the classifier says.
        detail: A short line under both.
    """

    file: Path
    given: str
    predicted: str
    detail: str


def write_sheet(thumbnails: Sequence[Thumbnail], path: Path) -> None:
    """Draw a PNG of the pictures, row by row.

    Raises:
        DataError: An image cannot be read.
    """
    columns = min(_COLUMNS, max(4, len(thumbnails)))
    rows = max(1, -(-len(thumbnails) // columns))
    height = rows * (_INCHES + 0.55) + 0.45
    figure = Figure(figsize=(columns * (_INCHES + 0.25), height))
    figure.suptitle(
        "label given → label predicted" if thumbnails else "no prediction contradicts its label",
        fontsize=11,
        y=1 - 0.12 / height,
        va="top",
    )
    for number, thumbnail in enumerate(thumbnails, start=1):
        axes = figure.add_subplot(rows, columns, number)
        image = read_image(thumbnail.file)
        image.thumbnail((_PIXELS, _PIXELS))
        axes.imshow(image)
        axes.set_axis_off()
        text = f"{short_name(thumbnail.given)} → {short_name(thumbnail.predicted)}"
        # A class may be called "$x$"; that is no formula.
        axes.set_title(text, fontsize=9, fontweight="bold", pad=15, parse_math=False)
        axes.text(
            0.5,
            1.03,
            thumbnail.detail,
            transform=axes.transAxes,
            fontsize=6.5,
            color="#555555",
            ha="center",
            va="bottom",
            parse_math=False,
        )
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.05 / height, top=1 - 0.85 / height, hspace=0.42, wspace=0.12
    )
    save_figure(figure, path)
