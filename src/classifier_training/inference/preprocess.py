"""Evaluation preprocessing: the very function that validation, export and the predictor run.

``(x / 255 - mean) / std`` in float32 gives bitwise the same tensor in numpy and in torch, so the
training process may normalise on its device what this module normalises on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifier_training.config.choices import RESIZE_MODES, ResizeMode
from classifier_training.errors import ConfigError
from classifier_training.inference.images import decode_image

INTERPOLATION = "bilinear"

# What each resize mode does, as the sidecar tells it to whoever writes it anew.
RESIZE_RULES: dict[str, str] = {
    "squash": "resize to image_size x image_size",
    "pad": "scale = image_size / longer side; resize each side to floor(side * scale + 0.5), at "
    "least 1 and at most image_size; paste on a square of pad_color at "
    "floor((image_size - side) / 2) from the left and from the top",
    "crop": "scale = image_size / shorter side; resize each side to floor(side * scale + 0.5), at "
    "least image_size; keep the square of image_size at floor((side - image_size) / 2) from the "
    "left and from the top",
}

# Above this many pixels a resized image is not made whole in order to be cropped.
_MOST_RESIZED = 1 << 24


@dataclass(frozen=True)
class PreprocessSpec:
    """Everything that stands between an image file and the network's input.

    Attributes:
        image_size: Side of the square input in pixels.
        resize: ``squash`` (whole image, aspect not kept), ``pad`` (letterbox on the mean colour)
            or ``crop`` (shorter side to ``image_size``, then the centre).
        mean: Per-channel mean in RGB order, of values in 0..1.
        std: Per-channel standard deviation, likewise.
    """

    image_size: int
    resize: ResizeMode
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.resize not in RESIZE_MODES:
            raise ConfigError(
                f"resize mode {self.resize!r} is unknown",
                expected=f"one of {', '.join(RESIZE_MODES)}",
                fix="set transforms.resize to one of them",
            )

    @property
    def pad_color(self) -> tuple[int, int, int]:
        """The mean colour in 0..255, which normalisation maps to about zero."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    @property
    def image_bytes(self) -> int:
        """Bytes of one resized image."""
        return 3 * self.image_size**2

    def resize_image(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize an RGB image.

        Args:
            image: RGB, any size.

        Returns:
            ``(image_size, image_size, 3)`` uint8, RGB.
        """
        size = self.image_size
        if self.resize == "squash":
            resized = image.resize((size, size), Image.Resampling.BILINEAR)
        elif self.resize == "pad":
            resized = self._pad(image)
        else:
            resized = self._crop(image)
        return np.asarray(resized, dtype=np.uint8)

    def load(self, data: bytes, name: str) -> npt.NDArray[np.uint8]:
        """Decode and resize an encoded image; see :func:`decode_image` for the errors."""
        return self.resize_image(decode_image(data, name))

    def normalize(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Turn pixels into the network's input.

        Args:
            images: ``(N, H, W, 3)`` uint8, RGB.

        Returns:
            ``(N, 3, H, W)`` float32, C-contiguous.
        """
        mean = np.asarray(self.mean, dtype=np.float32)
        std = np.asarray(self.std, dtype=np.float32)
        scaled = (images.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

    def _pad(self, image: Image.Image) -> Image.Image:
        size = self.image_size
        scale = size / max(image.size)
        width, height = (_scaled(side, scale, size) for side in image.size)
        canvas = Image.new("RGB", (size, size), self.pad_color)
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        canvas.paste(small, ((size - width) // 2, (size - height) // 2))
        return canvas

    def _crop(self, image: Image.Image) -> Image.Image:
        size = self.image_size
        scale = size / min(image.size)
        width, height = (max(size, int(side * scale + 0.5)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        if width * height > _MOST_RESIZED:  # a line of pixels would become gigabytes
            across, down = image.width / width, image.height / height
            box = (
                left * across,
                top * down,
                min(image.width, (left + size) * across),
                min(image.height, (top + size) * down),
            )
            return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        return resized.crop((left, top, left + size, top + size))


def _scaled(side: int, scale: float, limit: int) -> int:
    return min(limit, max(1, int(side * scale + 0.5)))
