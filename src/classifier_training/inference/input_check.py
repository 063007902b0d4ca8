"""Images unlike those of training: the optional ``input_statistics`` section of the sidecar.

A thumbnail, a black frame or a photograph of another camera gets an answer as confident as any;
that it does not look like the training images can be told from its pixels alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

MEASURES = ("width", "height", "brightness", "contrast")
QUANTILES = (0.001, 0.5, 0.999)
DEFINITION = (
    "width and height in pixels after EXIF orientation; brightness and contrast: mean and standard "
    "deviation of each RGB channel in 0..1 over 160 x 160 pixels taken by nearest neighbour, and "
    "64 x 64 of these likewise, averaged over the channels"
)

_SAMPLES = (160, 64)  # pixels a side, one after the other: as data.facts measures training images


@dataclass(frozen=True)
class InputStatistics:
    """What training images look like.

    Attributes:
        images: Number of training images measured.
        ranges: For each of ``MEASURES`` its ``QUANTILES`` over them.
    """

    images: int
    ranges: dict[str, tuple[float, float, float]]

    @classmethod
    def of(cls, measured: dict[str, npt.NDArray[Any]]) -> InputStatistics:
        """Take quantiles of ``(N,)`` values for each measure, ``N`` at least 1."""
        ranges = {}
        for name in MEASURES:
            low, median, high = np.quantile(measured[name].astype(np.float64), QUANTILES)
            ranges[name] = (float(low), float(median), float(high))
        return cls(len(measured[MEASURES[0]]), ranges)

    def oddities(self, image: Image.Image) -> tuple[str, ...]:
        """Say by which measures an RGB image lies outside of the training images' range."""
        found = []
        for name, value in measure(image).items():
            low, _, high = self.ranges[name]
            if not low <= value <= high:
                side = "below" if value < low else "above"
                bound = low if value < low else high
                found.append(f"{name} {value:.4g} {side} {bound:.4g}")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return the sidecar's section."""
        return {
            "images": self.images,
            "quantiles": list(QUANTILES),
            **{name: list(self.ranges[name]) for name in MEASURES},
            "definition": DEFINITION,
        }

    @classmethod
    def from_json(cls, section: dict[str, Any]) -> InputStatistics:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: It is something else; the caller names the file.
        """
        if section["quantiles"] != list(QUANTILES) or section["definition"] != DEFINITION:
            raise ValueError("input_statistics are of another definition")
        ranges = {}
        for name in MEASURES:
            low, median, high = (float(value) for value in section[name])
            if not 0 <= low <= median <= high < float("inf"):
                raise ValueError(f"input_statistics: {name} {section[name]!r:.60} is no range")
            ranges[name] = (low, median, high)
        return cls(int(section["images"]), ranges)


def measure(image: Image.Image) -> dict[str, float]:
    """Return the ``MEASURES`` of an RGB image."""
    width, height = image.size
    grid = image
    for side in _SAMPLES:
        grid = grid.resize((side, side), Image.Resampling.NEAREST)
    pixels = np.asarray(grid, dtype=np.float64).reshape(-1, 3) / 255
    values = (width, height, pixels.mean(axis=0).mean(), pixels.std(axis=0).mean())
    return {name: float(value) for name, value in zip(MEASURES, values, strict=True)}
