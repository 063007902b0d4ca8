"""Preprocessing written anew from the sidecar's text: plain Pillow and numpy, nothing of ours."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

_FILTERS = {"bilinear": Image.Resampling.BILINEAR}


def tensor_of(sidecar: dict[str, Any], data: bytes) -> npt.NDArray[np.float32]:
    """Return ``(1, 3, S, S)`` float32 of an encoded RGB image."""
    rules, norm = sidecar["preprocessing"], sidecar["normalization"]
    assert rules["color_order"] == "RGB"
    assert rules["layout"] == "NCHW"
    assert rules["value_range"] == [0.0, 1.0]
    assert rules["formula"] == "(pixels / 255 - mean) / std"
    assert rules["exif_orientation"] == "applied"
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert image.mode == "RGB"
    pixels = np.asarray(_square(image, rules), dtype=np.float64) / 255
    normalised = (pixels - np.array(norm["mean"])) / np.array(norm["std"])
    return normalised.transpose(2, 0, 1)[None].astype(np.float32)


def _square(image: Image.Image, rules: dict[str, Any]) -> Image.Image:
    size, resample = rules["image_size"], _FILTERS[rules["interpolation"]]
    if rules["resize"] == "squash":
        return image.resize((size, size), resample)
    if rules["resize"] == "pad":
        scale = size / max(image.size)
        sides = [min(size, max(1, math.floor(side * scale + 0.5))) for side in image.size]
        square = Image.new("RGB", (size, size), tuple(rules["pad_color"]))
        at = [math.floor((size - side) / 2) for side in sides]
        square.paste(image.resize(sides, resample), tuple(at))
        return square
    assert rules["resize"] == "crop"
    scale = size / min(image.size)
    sides = [max(size, math.floor(side * scale + 0.5)) for side in image.size]
    left, top = (math.floor((side - size) / 2) for side in sides)
    return image.resize(sides, resample).crop((left, top, left + size, top + size))
