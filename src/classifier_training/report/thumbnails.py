"""Small pictures that lie in the report itself, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from classifier_training.errors import DataError
from classifier_training.runtime.cores import available_cores
from classifier_training.runtime.images import decode_image
from classifier_training.runtime.progress import OnProgress

SIDE = 128  # pixels of the longer side
OVERLAY_SIDE = 256
# Of all pictures together, in characters of the file; the report stays below 8 MB with the rest.
BUDGET = 5_000_000
_QUALITY = 78
_BATCH = 64


@dataclass(frozen=True)
class Pictures:
    """Data URIs by path.

    Attributes:
        uris: Of the pictures that could be read.
        missing: How many could not.
        left_out: How many there was no room for.
    """

    uris: dict[str, str]
    missing: int
    left_out: int


def thumbnails(root: Path, paths: Sequence[str], on_images: OnProgress) -> Pictures:
    """Shrink images, the most wanted first, until the budget is used up.

    Args:
        root: The data root.
        paths: Relative to it, each once. Those that leave it are not read.
        on_images: Called with (done, total).
    """
    uris: dict[str, str] = {}
    room, missing = BUDGET, 0
    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            for path, uri in zip(
                batch, pool.map(lambda p: _thumbnail(root, p), batch), strict=True
            ):
                if uri is None:
                    missing += 1
                elif room >= len(uri):
                    uris[path] = uri
                    room -= len(uri)
            on_images(min(start + _BATCH, len(paths)), len(paths))
            if room < BUDGET / 500:
                break
    return Pictures(uris, missing, len(paths) - missing - len(uris))


def overlay(run: Path, name: str) -> str | None:
    """Shrink a picture that lies in the run folder; None where it cannot be read."""
    return _data_uri(run, name, OVERLAY_SIDE)


def _thumbnail(root: Path, path: str) -> str | None:
    return _data_uri(root, path, SIDE)


def _data_uri(root: Path, name: str, side: int) -> str | None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        return None
    try:
        image = decode_image((root / name).read_bytes(), name, at_least=side)
    except (OSError, ValueError, DataError):
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
