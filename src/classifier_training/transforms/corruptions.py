"""Named corruptions of photographs at three severities, in numpy and Pillow.

Each takes a decoded RGB image and returns one of the same size, before any preprocessing. Lengths
are fractions of the image's shorter side, so that a severity looks alike on a thumbnail and on a
photograph of 12 megapixels; noise and JPEG act on the pixels of the file.
"""

from __future__ import annotations

import io
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

SEVERITIES = (1, 2, 3)

_Pixels = npt.NDArray[np.float64]
_Function = Callable[[Image.Image, float, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a picture.

    Attributes:
        name: Its key.
        words: What it is like.
        unit: What the amounts mean.
        amounts: One for each severity, from mild to strong.
        function: ``(image, amount, rng) -> image``.
    """

    name: str
    words: str
    unit: str
    amounts: tuple[float, float, float]
    function: _Function

    def apply(self, image: Image.Image, severity: int, *, name: str, seed: int) -> Image.Image:
        """Spoil an RGB image.

        Args:
            image: Any size; it is not changed.
            severity: 1, 2 or 3.
            name: Of the image. What is random is a function of (seed, name, corruption, severity),
                so that order and selection change nothing.
            seed: Of the whole.
        """
        words = [zlib.crc32(text.encode("utf-8", "surrogateescape")) for text in (name, self.name)]
        rng = np.random.default_rng([seed, *words, severity])
        return self.function(image, self.amounts[severity - 1], rng)


def gaussian_noise(image: Image.Image, sd: float, rng: np.random.Generator) -> Image.Image:
    """Add independent normal noise to each value; ``sd`` is a fraction of the full range."""
    pixels = np.asarray(image, dtype=np.float64)
    return _to_image(pixels + rng.normal(0, 255 * sd, pixels.shape))


def gaussian_blur(image: Image.Image, sigma: float, _rng: np.random.Generator) -> Image.Image:
    """Blur with a Gaussian of standard deviation ``sigma`` shorter sides."""
    return image.filter(ImageFilter.GaussianBlur(sigma * min(image.size)))


def defocus_blur(image: Image.Image, radius: float, _rng: np.random.Generator) -> Image.Image:
    """Blur with a disk, as a lens out of focus does; ``radius`` in shorter sides."""
    return _convolve(image, disk_kernel(radius * min(image.size)))


def motion_blur(image: Image.Image, length: float, rng: np.random.Generator) -> Image.Image:
    """Blur along a line of ``length`` shorter sides in a random direction."""
    return _convolve(image, line_kernel(length * min(image.size), rng.uniform(0, math.pi)))


def jpeg(image: Image.Image, quality: float, _rng: np.random.Generator) -> Image.Image:
    """Write and read as JPEG of a quality of 1..95 (libjpeg's scale), colours halved (4:2:0)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality), subsampling="4:2:0")
    with Image.open(buffer) as again:
        return again.convert("RGB")


def exposure(image: Image.Image, gain: float, _rng: np.random.Generator) -> Image.Image:
    """Multiply all values by ``gain``; what exceeds the range is cut."""
    return _to_image(np.asarray(image, dtype=np.float64) * gain)


def pixelate(image: Image.Image, edge: float, _rng: np.random.Generator) -> Image.Image:
    """Replace blocks by their mean; ``edge`` is a block's side in shorter sides."""
    scale = 1 / max(1.0, edge * min(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def zoom_in(image: Image.Image, share: float, _rng: np.random.Generator) -> Image.Image:
    """Enlarge the centre, ``share`` of each side, to the whole: the object is too large."""
    left, top = ((1 - share) / 2 * side for side in image.size)
    box = (left, top, image.width - left, image.height - top)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


def zoom_out(image: Image.Image, share: float, _rng: np.random.Generator) -> Image.Image:
    """Shrink to ``share`` of each side, centred on the image's mean colour: too small."""
    width, height = (max(1, round(side * share)) for side in image.size)
    red, green, blue = (round(value) for value in np.asarray(image).mean(axis=(0, 1)))
    canvas = Image.new("RGB", image.size, (red, green, blue))
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    canvas.paste(small, ((image.width - width) // 2, (image.height - height) // 2))
    return canvas


_SIDE = "of the shorter side"
CORRUPTIONS = {
    item.name: item
    for item in (
        Corruption(
            "gaussian_noise",
            "grain of a sensor in little light",
            "standard deviation, of the full range",
            (0.04, 0.10, 0.20),
            gaussian_noise,
        ),
        Corruption(
            "gaussian_blur", "soft picture", f"sigma, {_SIDE}", (0.006, 0.012, 0.024), gaussian_blur
        ),
        Corruption(
            "defocus_blur",
            "lens out of focus",
            f"radius of the disk, {_SIDE}",
            (0.01, 0.02, 0.04),
            defocus_blur,
        ),
        Corruption(
            "motion_blur",
            "subject or camera moved, any direction",
            f"length of the trail, {_SIDE}",
            (0.03, 0.06, 0.12),
            motion_blur,
        ),
        Corruption(
            "jpeg", "compressed hard", "quality on libjpeg's scale", (30.0, 15.0, 5.0), jpeg
        ),
        Corruption("brighter", "overexposed", "gain", (1.4, 1.9, 2.7), exposure),
        Corruption("darker", "underexposed", "gain", (0.6, 0.35, 0.15), exposure),
        Corruption(
            "pixelate",
            "enlarged from few pixels",
            f"side of a block, {_SIDE}",
            (0.02, 0.04, 0.08),
            pixelate,
        ),
        Corruption(
            "zoom_in", "cropped too tightly", "share of each side kept", (0.85, 0.7, 0.5), zoom_in
        ),
        Corruption(
            "zoom_out", "subject too small", "share of each side filled", (0.8, 0.6, 0.4), zoom_out
        ),
    )
}


def disk_kernel(radius: float) -> _Pixels:
    """Return the share of each pixel that a disk covers, summing to 1; ``radius`` in pixels."""
    reach = math.ceil(radius + 0.5)
    fine = (np.arange((2 * reach + 1) * 9) + 0.5) / 9 - reach - 0.5
    inside = (fine[:, None] ** 2 + fine[None, :] ** 2 <= radius**2).astype(np.float64)
    return _binned(inside, 2 * reach + 1)


def line_kernel(length: float, angle: float) -> _Pixels:
    """Return a line of ``length`` pixels through the centre, summing to 1.

    Args:
        length: End to end.
        angle: From the horizontal, in radians.
    """
    reach = math.ceil(length / 2)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.linspace(-length / 2, length / 2, 16 * reach + 1)
    # Each point is shared by the four pixels around it.
    across, down = reach + steps * math.cos(angle), reach + steps * math.sin(angle)
    left = np.clip(np.floor(across).astype(int), 0, max(0, 2 * reach - 1))
    top = np.clip(np.floor(down).astype(int), 0, max(0, 2 * reach - 1))
    right, low = across - left, down - top
    for rows, columns, weights in (
        (top, left, (1 - low) * (1 - right)),
        (top, left + 1, (1 - low) * right),
        (top + 1, left, low * (1 - right)),
        (top + 1, left + 1, low * right),
    ):
        np.add.at(kernel, (rows, columns), weights)
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def _binned(fine: _Pixels, size: int) -> _Pixels:
    sums = fine.reshape(size, 9, size, 9).sum(axis=(1, 3))
    if not sums.any():  # a disk smaller than the grid
        sums[size // 2, size // 2] = 1
    return np.asarray(sums / sums.sum(), dtype=np.float64)


def _convolve(image: Image.Image, kernel: _Pixels) -> Image.Image:
    """Convolve with an odd square kernel by FFT; the border's pixels go on beyond it."""
    reach = len(kernel) // 2
    pixels = np.asarray(image, dtype=np.float64)
    wide = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    shape = (wide.shape[0], wide.shape[1])
    spectrum = np.fft.rfft2(wide, axes=(0, 1)) * np.fft.rfft2(kernel, s=shape)[..., None]
    whole = np.fft.irfft2(spectrum, s=shape, axes=(0, 1))
    # The kernel's centre stands at (reach, reach), and what wrapped round is in the first rows.
    return _to_image(whole[2 * reach :, 2 * reach :])


def _to_image(pixels: _Pixels) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


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
