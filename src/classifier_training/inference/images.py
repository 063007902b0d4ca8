"""Bytes to RGB: the one image decoder, used in training, evaluation and deployment alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from classifier_training.errors import DataError

# By Pillow's name of the format; an image has one of these endings.
IMAGE_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
}
IMAGE_EXTENSIONS = frozenset(ending for endings in IMAGE_FORMATS.values() for ending in endings)

# Readers by how a file begins. Image.open would try others too (EPS starts Ghostscript), and its
# own limit of pixels can only be silenced for the whole process.
_READERS: tuple[tuple[tuple[bytes, ...], type[ImageFile.ImageFile]], ...] = (
    ((b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ((b"RIFF",), WebPImagePlugin.WebPImageFile),
    ((b"BM",), BmpImagePlugin.BmpImageFile),
    ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    (tuple(b"P%c" % kind for kind in b"0123456fy"), PpmImagePlugin.PpmImageFile),
)

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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
            fix="restore the file or its permissions, or remove its row from the data",
        ) from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str, *, at_least: int | None = None) -> Image.Image:
    """Decode one image to 8-bit RGB with its EXIF orientation applied.

    Grey and palette images are expanded, alpha is composited on white, CMYK is converted, 16-bit
    grey keeps its high byte, and of an animation the first frame is used.

    Args:
        data: The encoded file.
        name: How errors call it, normally its path.
        at_least: Reduce the image by :func:`reduction`, which for a JPEG also saves most of the
            decoding: the inverse DCT then makes fewer pixels. None: whole, as evaluation needs it.

    Raises:
        DataError: Not an image, truncated, or larger than ``MAX_PIXELS``.
    """
    try:
        image = _open(data)
        check_pixels(*image.size)
        factor = reduction(*image.size, at_least)
        if factor > 1 and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (image.width // factor, image.height // factor))
            factor = 1
        image.load()
        transposition = exif_transposition(image)
        rgb = _to_rgb(image)
        rgb = rgb.reduce(factor) if factor > 1 else rgb
        return rgb if transposition is None else rgb.transpose(transposition)
    except Exception as error:  # on damaged files Pillow raises nearly everything there is
        reason = "it is empty" if not data else str(error) or type(error).__name__
        raise DataError(
            f"cannot decode image {name}: {reason}",
            expected="a complete image of a common format (JPEG, PNG, WebP, BMP, GIF, TIFF)",
            fix="replace the file, or remove its row from the data",
        ) from error


def reduction(width: int, height: int, at_least: int | None) -> int:
    """Return by how much an image is reduced: the largest of 1, 2, 4, 8 that leaves ``at_least``.

    Args:
        width: Of the whole image.
        height: Likewise.
        at_least: The shorter side does not fall below it; None reduces nothing.
    """
    if at_least is None:
        return 1
    shorter = min(width, height)
    return next((factor for factor in (8, 4, 2) if shorter >= factor * at_least), 1)


def exif_transposition(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright, as its EXIF or XMP data tells; None when it is.

    Args:
        image: As opened; of a PNG, after loading (its EXIF may follow the pixels).
    """
    return _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))


def check_pixels(width: int, height: int) -> None:
    """Refuse a decompression bomb, before anything of its size is allocated.

    Raises:
        DecompressionBombError: More than ``MAX_PIXELS``.
    """
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(
            f"{width} x {height} pixels, the limit is {MAX_PIXELS:,}"
        )


def _open(data: bytes) -> ImageFile.ImageFile:
    for beginnings, reader in _READERS:
        if data.startswith(beginnings):
            try:
                return reader(io.BytesIO(data))
            except SyntaxError as error:  # Pillow's way to say that it is something else
                raise ValueError("not an image in a known format") from error
    raise ValueError("not an image in a known format")


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
