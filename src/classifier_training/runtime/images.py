"""Bytes to RGB: the one image decoder, used in training, evaluation and deployment alike."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from classifier_training.errors import DataError

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"}
)

# What Image.open may try. Among the others is EPS, whose reader starts Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# Above this a file is taken for a decompression bomb: 14000 x 14000 pixels are 600 MB of RGB.
MAX_PIXELS = 200_000_000

# Transparent pixels carry arbitrary colours; on white they look as a browser shows them.
_ALPHA_BACKGROUND = (255, 255, 255, 255)


def read_image(path: Path) -> Image.Image:
    """Read a file as RGB; see :func:`decode_image`.

    Raises:
        DataError: The file cannot be read or decoded. The message names it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read image {path}: {error.strerror or error}",
            expected="a readable image file",
            mend="restore the file or its permissions, or remove its row from the data",
        ) from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Image.Image:
    """Decode one image to 8-bit RGB with its EXIF orientation applied.

    Grey and palette images are expanded, alpha is composited on white, CMYK is converted, 16-bit
    grey keeps its high byte, and of an animation the first frame is used.

    Args:
        data: The encoded file.
        name: How errors call it, normally its path.

    Raises:
        DataError: Not an image, truncated, or larger than ``MAX_PIXELS``.
    """
    try:
        with warnings.catch_warnings():
            # Our own limit below is the one that counts; Pillow's warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(
                    f"{image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,}"
                )
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # on damaged files Pillow raises nearly everything there is
        reason = "it is empty" if not data else str(error) or type(error).__name__
        # Pillow names its in-memory buffer, which tells a user nothing.
        reason = "not an image in a known format" if "BytesIO" in reason else reason
        raise DataError(
            f"cannot decode image {name}: {reason}",
            expected="a complete image of a common format (JPEG, PNG, WebP, BMP, GIF, TIFF)",
            mend="replace the file, or remove its row from the data",
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(wide, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.clip(np.asarray(image), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, _ALPHA_BACKGROUND)
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")
