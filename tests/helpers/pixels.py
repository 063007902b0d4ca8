"""Tiny images whose content is known, for tests of the way from files to batches."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def png(color: tuple[int, int, int], size: tuple[int, int] = (4, 4)) -> bytes:
    """Return a one-coloured PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format="PNG")
    return buffer.getvalue()


def numbered(number: int, size: tuple[int, int] = (4, 4)) -> bytes:
    """Return a PNG that differs for every number."""
    return png((number % 256, number // 256 % 256, 7), size)


def noise(seed: int, size: tuple[int, int] = (24, 20)) -> bytes:
    """Return a PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_images(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by their relative path; returns ``root``."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root
