"""Bytes to the pixels that training augments: the runtime's decoder, or its equal for JPEG.

``simplejpeg`` asks libjpeg-turbo for RGB in one call, where Pillow decodes in pieces to four bytes
a pixel, holding the interpreter lock, and copies that to three. It is used when it is there and
this machine's Pillow gives the same pixels; otherwise Pillow does the work, with the same result.
"""

from __future__ import annotations

import functools
import io
import itertools
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from classifier_training.data.manifest import Manifest
from classifier_training.errors import DataError
from classifier_training.inference.images import (
    MAX_PIXELS,
    decode_image,
    exif_transposition,
    reduction,
)
from classifier_training.inference.preprocess import PreprocessSpec

try:
    import simplejpeg  # type: ignore[import-untyped]
except ImportError:  # no wheel for this platform
    simplejpeg = None

_START_OF_SCAN = 0xDA
_APP1 = 0xE1  # EXIF and XMP, either of which may turn the image
# Baseline, extended and progressive Huffman: what every libjpeg reads.
_FRAMES = (0xC0, 0xC1, 0xC2)


def decode_pixels(data: bytes, name: str, at_least: int | None) -> npt.NDArray[np.uint8]:
    """Decode one image; bit for bit what :func:`decode_image` gives, sooner.

    Args:
        data: The encoded file.
        name: How errors call it.
        at_least: See :func:`decode_image`.

    Returns:
        ``(H, W, 3)`` uint8, RGB, writable and owned by the caller.

    Raises:
        DataError: As :func:`decode_image`.
    """
    if data.startswith(b"\xff\xd8\xff") and is_turbo():
        pixels = _decode_jpeg(data, at_least)
        if pixels is not None:
            return pixels
    return np.array(decode_image(data, name, at_least=at_least))


@functools.cache
def is_turbo() -> bool:
    """Tell whether ``simplejpeg`` is there and decodes as this machine's Pillow does.

    They bring a libjpeg each; a Pillow that was built on another one rounds differently.
    """
    if simplejpeg is None:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (45, 67, 3), dtype=np.uint8)
    for subsampling, is_progressive in itertools.product((0, 1, 2), (False, True)):
        file = io.BytesIO()
        Image.fromarray(noise).save(
            file, "JPEG", quality=80, subsampling=subsampling, progressive=is_progressive
        )
        for at_least in (None, 20, 10, 5):
            found = _decode_jpeg(file.getvalue(), at_least)
            expected = decode_image(file.getvalue(), "probe", at_least=at_least)
            if found is None or not np.array_equal(found, np.asarray(expected)):
                return False
    return True


class _Header(NamedTuple):
    width: int
    height: int
    may_be_turned: bool


def _decode_jpeg(data: bytes, at_least: int | None) -> npt.NDArray[np.uint8] | None:
    """Decode an ordinary JPEG; None for any other, and for one that is not quite right."""
    header = _read_header(data)
    if header is None or header.width * header.height > MAX_PIXELS:
        return None
    width, height = header.width, header.height
    factor = reduction(width, height, at_least)
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "RGB", min_width=-(-width // factor), min_height=-(-height // factor)
        )
        if header.may_be_turned:
            transposition = exif_transposition(JpegImagePlugin.JpegImageFile(io.BytesIO(data)))
            if transposition is not None:
                return np.array(Image.fromarray(pixels).transpose(transposition))
    except (ValueError, SyntaxError, OSError):
        return None  # Pillow forgives some of it, and says what is wrong with the rest
    return pixels


def _read_header(data: bytes) -> _Header | None:
    """Walk the segments of a JPEG up to its first scan (ITU-T T.81, annex B)."""
    at, frame, may_be_turned = 2, None, False
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return None if frame is None else _Header(*frame, may_be_turned)
        if marker in _FRAMES:
            if data[at + 4] != 8 or data[at + 9] not in (1, 3):
                return None
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            frame = (width, height) if width and height else None
        may_be_turned = may_be_turned or marker == _APP1
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


@dataclass(frozen=True)
class DecodeSpec:
    """A function of a file's bytes alone, so that its result can be kept.

    Attributes:
        spec: Evaluation preprocessing; None when the image is augmented.
        at_least: Without ``spec``: reduce so that the shorter side is not below it; None: never.
    """

    spec: PreprocessSpec | None
    at_least: int | None = None

    def pixels(self, data: bytes, name: str) -> npt.NDArray[np.uint8]:
        """Return ``(H, W, 3)`` uint8, RGB.

        Raises:
            DataError: The image cannot be decoded; ``name`` is in the message.
        """
        if self.spec is None:
            return decode_pixels(data, name, self.at_least)
        return self.spec.load(data, name)

    def facts(self) -> dict[str, Any]:
        """Return all that the pixels depend on besides the file, as plain types."""
        return asdict(self)


def read_file(manifest: Manifest, row: int) -> bytes:
    """Read the file of a manifest row.

    Raises:
        DataError: It cannot be read; the message names it.
    """
    try:
        return manifest.file(row).read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read image {manifest.describe(row)}: {error.strerror or error}",
            expected="the data to stay where it was when the run started",
            fix="restore the file, then run the same command again",
        ) from error
