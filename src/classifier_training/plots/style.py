"""What all pictures share: colours, plain axes, and how a picture reaches the disk."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from classifier_training.system.files import replacing

DPI = 110
BLUE, GREY, RED = "#1f5fa8", "#8a8f98", "#c23b22"
# Okabe and Ito's palette: told apart by colour-blind readers too.
SPLIT_COLORS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73"}


def plain_axes(axes: Axes) -> None:
    """Leave out the box, and put a faint grid behind the content."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a PNG atomically; the same picture gives the same bytes.

    Args:
        figure: What to draw.
        path: The PNG to write; its folder is made.
        dpi: Dots per inch.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
