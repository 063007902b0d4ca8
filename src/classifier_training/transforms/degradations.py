"""What a broadcast camera, its codec and its distance do to an image.

Each module maps one ``(3, H, W)`` uint8 RGB tensor to another of the same shape and dtype, and
never writes into its input. Chance comes from torch's global generator alone, which is seeded for
each sample. The work is Pillow's and numpy's: on uint8 they are several times faster than float
tensors. Torchvision's ``RandomApply`` and ``RandomChoice`` compose them, also for a share of images
that stay clean.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

BILINEAR = Image.Resampling.BILINEAR


class Degradation(nn.Module, ABC):
    """Applies :meth:`degrade` with probability ``p``.

    Args:
        p: Probability, 0..1.

    Raises:
        ValueError: ``p`` is no probability.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not (_is_number(p) and 0 <= p <= 1):
            raise ValueError(f"p is {p!r}; it is a probability: a number from 0 to 1")
        self.p = p

    def forward(self, image: Tensor) -> Tensor:
        """Return the degraded image, or the image itself."""
        if float(torch.rand(())) >= self.p:
            return image
        return _to_tensor(self.degrade(_to_picture(image)))

    @abstractmethod
    def degrade(self, picture: Image.Image) -> Image.Image:
        """Return the degraded picture: RGB, of the same size."""


class JpegCompression(Degradation):
    """Encode as JPEG and decode again: blocks and ringing, as Pillow writes them (4:2:0).

    Args:
        p: Probability.
        quality: Range of Pillow's ``quality``, whole numbers in 1..100, both ends included.
    """

    def __init__(self, p: float, quality: Sequence[int]) -> None:
        super().__init__(p)
        low, high = checked_range("quality", quality, 1, 100)
        if int(low) != low or int(high) != high:
            raise ValueError(f"quality is {list(quality)}; it is a range of whole numbers")
        self.quality = int(low), int(high)

    def degrade(self, picture: Image.Image) -> Image.Image:
        """Return what is left after the codec."""
        low, high = self.quality
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(torch.randint(low, high + 1, ())))
        return Image.open(file)


class Pixelation(Degradation):
    """Average over blocks and show the blocks: box reduction, nearest-neighbour enlargement.

    Args:
        p: Probability.
        scale: Range of the share of width and height that is kept, above 0 and up to 1.
    """

    def __init__(self, p: float, scale: Sequence[float]) -> None:
        super().__init__(p)
        self.scale = checked_range("scale", scale, 0, 1, above_low=True)

    def degrade(self, picture: Image.Image) -> Image.Image:
        """Return the blocks."""
        small = picture.resize(scaled(picture, draw(self.scale)), Image.Resampling.BOX)
        return small.resize(picture.size, Image.Resampling.NEAREST)


class BilinearDownscale(Degradation):
    """Lose resolution and come back soft: a player far from the camera, then enlarged.

    Args:
        p: Probability.
        scale: Range of the share of width and height that is kept, above 0 and up to 1.
    """

    def __init__(self, p: float, scale: Sequence[float]) -> None:
        super().__init__(p)
        self.scale = checked_range("scale", scale, 0, 1, above_low=True)

    def degrade(self, picture: Image.Image) -> Image.Image:
        """Return the soft picture. Pillow's bilinear filter is antialiased when it reduces."""
        small = picture.resize(scaled(picture, draw(self.scale)), BILINEAR)
        return small.resize(picture.size, BILINEAR)


class GaussianNoise(Degradation):
    """Add independent noise to every value, rounded and clipped to 0..255.

    Args:
        p: Probability.
        sigma: Range of the noise's standard deviation, in units of 0..255.
    """

    def __init__(self, p: float, sigma: Sequence[float]) -> None:
        super().__init__(p)
        self.sigma = checked_range("sigma", sigma, 0, 255)

    def degrade(self, picture: Image.Image) -> Image.Image:
        """Return the noisy picture."""
        pixels = np.asarray(picture)
        noise = torch.randn(pixels.shape).mul_(draw(self.sigma)).numpy()
        noise += pixels
        return Image.fromarray(np.rint(noise, out=noise).clip(0, 255, out=noise).astype(np.uint8))


class ZoomIn(Degradation):
    """Enlarge the centre: a tight crop around the player.

    Args:
        p: Probability.
        factor: Range of the enlargement, from 1.
    """

    def __init__(self, p: float, factor: Sequence[float]) -> None:
        super().__init__(p)
        self.factor = checked_range("factor", factor, 1, 100)

    def degrade(self, picture: Image.Image) -> Image.Image:
        """Return the centre at the picture's own size; its edges may lie between pixels."""
        width, height = picture.size
        factor = draw(self.factor)
        left, top = (width - width / factor) / 2, (height - height / factor) / 2
        return picture.resize(picture.size, BILINEAR, box=(left, top, width - left, height - top))


class ZoomOut(Degradation):
    """Shrink about the centre: a loose crop. The border takes one colour.

    Args:
        p: Probability.
        factor: Range by which width and height are divided, from 1.
        mean: Colour of the border in 0..1, as in ``transforms.mean``: zero once normalised.
    """

    def __init__(self, p: float, factor: Sequence[float], mean: Sequence[float]) -> None:
        super().__init__(p)
        self.factor = checked_range("factor", factor, 1, 100)
        if len(mean) != 3 or not all(_is_number(value) and 0 <= value <= 1 for value in mean):
            raise ValueError(f"mean is {mean!r}; it is three numbers from 0 to 1")
        red, green, blue = (round(255 * value) for value in mean)
        self.border = red, green, blue

    def degrade(self, picture: Image.Image) -> Image.Image:
        """Return the small picture on its border."""
        small = picture.resize(scaled(picture, 1 / draw(self.factor)), BILINEAR)
        whole = Image.new("RGB", picture.size, self.border)
        left, top = (picture.width - small.width) // 2, (picture.height - small.height) // 2
        whole.paste(small, (left, top))
        return whole


def checked_range(
    name: str, given: Sequence[float], low: float, high: float, *, above_low: bool = False
) -> tuple[float, float]:
    """Return ``given`` as a pair.

    Raises:
        ValueError: It is no ascending pair of numbers within ``low..high`` (``low`` itself not
            allowed with ``above_low``).
    """
    is_pair = isinstance(given, list | tuple) and len(given) == 2
    if not is_pair or not all(_is_number(value) for value in given):
        raise ValueError(f"{name} is {given!r}; it is a range: [lowest, highest]")
    first, last = given
    is_above = first > low if above_low else first >= low
    if not (is_above and first <= last <= high):
        start = f"above {low:g}" if above_low else f"from {low:g}"
        raise ValueError(f"{name} is {list(given)}; it is [lowest, highest], {start} to {high:g}")
    return float(first), float(last)


def draw(bounds: tuple[float, float]) -> float:
    """Draw a number evenly from a range, from torch's global generator."""
    low, high = bounds
    return low + (high - low) * float(torch.rand(()))


def scaled(picture: Image.Image, scale: float) -> tuple[int, int]:
    """Return width and height times ``scale``, at least one pixel."""
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _to_picture(image: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))


def _to_tensor(picture: Image.Image) -> Tensor:
    """Return ``(3, H, W)``. Pillow's buffer is read-only: a copy."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
