"""Images that a small network gets wrong now and then, so that scores lie between 0 and 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.data import CLASSES, class_image, list_folder, write_folder


def write_hard_folder(root: Path) -> Path:
    """Write what :func:`write_folder` writes, each image mixed with one of another class."""
    write_folder(root)
    rng = np.random.default_rng(11)
    for seed, (_, path, label) in enumerate(list_folder(root)):
        position = CLASSES.index(label)
        other = (position + int(rng.integers(1, len(CLASSES)))) % len(CLASSES)
        size = (int(rng.integers(36, 70)), int(rng.integers(36, 70)))
        images = class_image(position, seed, size), class_image(other, seed + 7, size)
        Image.blend(*images, alpha=float(rng.uniform(0.2, 0.6))).save(root / path)
    return root
