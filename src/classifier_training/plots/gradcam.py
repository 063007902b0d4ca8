"""An image beside what speaks in it for two classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from classifier_training.plots.class_names import short_name
from classifier_training.plots.style import save_figure

_LONGEST = 18
_WIDTH, _HEIGHT = 7.2, 2.95  # inches


@dataclass(frozen=True)
class Overlay:
    """What is drawn.

    Attributes:
        image: ``(H, W, 3)`` uint8, as the network was given it.
        heat: ``(2, H, W)`` float32, at least 0: for the predicted and for the second class.
        true: Name of the true class.
        predicted: Name of the predicted class.
        second: Name of the class of the second map.
        confidence: Of the prediction.
    """

    image: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.float32]
    true: str
    predicted: str
    second: str
    confidence: float


def draw_overlays(overlay: Overlay, path: Path) -> None:
    """Draw the image and both maps on one scale, so that a class without evidence stays dark.

    Args:
        overlay: What to draw.
        path: The PNG to write, atomically.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.80, wspace=0.04)
    names = overlay.true, overlay.predicted, overlay.second
    true, predicted, second = (short_name(name, _LONGEST) for name in names)
    is_right = overlay.predicted == overlay.true
    scale = float(overlay.heat.max())
    axes[0].imshow(overlay.image, interpolation="nearest")
    _title(axes[0], f"true: {true}", "as the network sees it")
    _draw_heat(axes[1], overlay.image, overlay.heat[0], scale)
    verdict = "right" if is_right else "wrong"
    _title(axes[1], f"predicted: {predicted}", f"{verdict}, confidence {overlay.confidence:.2f}")
    _draw_heat(axes[2], overlay.image, overlay.heat[1], scale)
    told = "runner-up" if is_right else "for the true class"
    _title(axes[2], second, f"{told}{'' if overlay.heat[1].any() else ': nothing speaks for it'}")
    save_figure(figure, path)


def _draw_heat(
    axes: Axes, image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32], scale: float
) -> None:
    """Draw a grey image under a map whose maximum over both maps is ``scale``."""
    share = heat / scale if scale > 0 else heat
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.imshow(
        share, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.45 * share, interpolation="bilinear"
    )


def _title(axes: Axes, title: str, detail: str) -> None:
    axes.set_axis_off()
    # A class may be called "$x$"; that is no formula.
    axes.set_title(title, fontsize=10.5, fontweight="bold", pad=17, parse_math=False)
    axes.text(
        0.5, 1.02, detail, transform=axes.transAxes, fontsize=8.5, color="#555555", ha="center",
        va="bottom", parse_math=False,
    )  # fmt: skip
