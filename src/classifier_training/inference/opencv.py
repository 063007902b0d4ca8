"""The preprocessing of the sidecar as an OpenCV pipeline does it, to measure how far off it is.

Needs the extra ``[opencv]``. Decoding is ``cv2.imdecode`` with ``IMREAD_COLOR``: EXIF orientation
is applied, channels come as BGR, alpha is dropped (not composited).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from classifier_training.errors import DataError
from classifier_training.inference.preprocess import PreprocessSpec

Pixels = npt.NDArray[np.uint8]

# How pixels are combined. "linear" is what cv2.resize does by default: two by two neighbours, so
# that shrinking skips pixels. "area" averages them. "antialias" is the filter of the sidecar, which
# OpenCV does not have: two products with matrices of weights.
INTERPOLATIONS = ("linear", "area", "antialias")
_FLAGS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


@dataclass(frozen=True)
class OpenCvPreprocess:
    """Decoding and resizing by OpenCV, by the rules of a :class:`PreprocessSpec`.

    Attributes:
        spec: Size, resize mode and colours.
        interpolation: One of ``INTERPOLATIONS``.
    """

    spec: PreprocessSpec
    interpolation: str

    def load(self, data: bytes, name: str) -> Pixels:
        """Return ``(image_size, image_size, 3)`` uint8 RGB of an encoded image.

        Raises:
            DataError: OpenCV cannot decode it. The message names it.
        """
        return self.resize_image(decode(data, name))

    def resize_image(self, image: Pixels) -> Pixels:
        """Return ``(image_size, image_size, 3)`` uint8 of ``(H, W, 3)`` uint8."""
        size, (height, width) = self.spec.image_size, image.shape[:2]
        if self.spec.resize == "squash":
            return self._resize(image, size, size)
        if self.spec.resize == "pad":
            scale = size / max(height, width)
            height, width = (min(size, max(1, int(s * scale + 0.5))) for s in (height, width))
            canvas = np.full((size, size, 3), self.spec.pad_color, dtype=np.uint8)
            top, left = (size - height) // 2, (size - width) // 2
            canvas[top : top + height, left : left + width] = self._resize(image, width, height)
            return canvas
        scale = size / min(height, width)
        height, width = (max(size, int(s * scale + 0.5)) for s in (height, width))
        top, left = (height - size) // 2, (width - size) // 2
        return self._resize(image, width, height)[top : top + size, left : left + size]

    def _resize(self, image: Pixels, width: int, height: int) -> Pixels:
        if self.interpolation == "antialias":
            return resize_antialiased(image, width, height)
        flag = _FLAGS[self.interpolation]
        return np.asarray(cv2.resize(image, (width, height), interpolation=flag), dtype=np.uint8)


def decode(data: bytes, name: str) -> Pixels:
    """Return ``(H, W, 3)`` uint8 RGB of an encoded image.

    Raises:
        DataError: OpenCV cannot decode it.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # an empty buffer
        raise _undecodable(name) from error
    if image is None:
        raise _undecodable(name)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def resize_antialiased(image: Pixels, width: int, height: int) -> Pixels:
    """Resize ``(H, W, 3)`` uint8 by a triangle filter as wide as the step between samples.

    First along the rows, then along the columns, each rounded to uint8. That is what Pillow does,
    and the result is the same; only that Pillow 13 turns the order round where the height shrinks
    much more than the width, after which a pixel may differ by 1.
    """
    across = triangle_weights(image.shape[1], width)
    down = triangle_weights(image.shape[0], height)
    rows = _rounded(np.einsum("ow,hwc->hoc", across, image.astype(np.float64), optimize=True))
    return _rounded(np.einsum("oh,hwc->owc", down, rows.astype(np.float64), optimize=True))


def triangle_weights(side: int, target: int) -> npt.NDArray[np.float64]:
    """Return ``(target, side)`` float64: how much each input pixel is worth for each output one.

    In steps of 2**-22, as Pillow's fixed-point arithmetic has them: an output of exactly 0.5 is
    common when shrinking by a whole number, and then decides how it is rounded.
    """
    step = side / target
    reach = max(step, 1.0)
    centres = (np.arange(target) + 0.5) * step
    distance = np.abs(np.arange(side) + 0.5 - centres[:, None]) / reach
    weights = np.clip(1 - distance, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.floor(weights * 2**22 + 0.5) / 2**22)


def _rounded(values: npt.NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.floor(values + 0.5), 0, 255), dtype=np.uint8)


def _undecodable(name: str) -> DataError:
    return DataError(
        f"OpenCV cannot decode image {name}",
        expected="a complete image of a format that OpenCV reads",
        fix="replace the file, or leave it out",
    )
