"""Small data sets on disk, in the formats that users have. Classes are easy to tell apart."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("0", "00", "1e3", "NO")
COUNTS = {"train": 12, "val": 6, "test": 4}


def class_image(position: int, seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Draw a picture of class number ``position``: its own colour and stripe direction, noisy."""
    rng = np.random.default_rng([position, seed])
    width, height = size
    rows, columns = np.indices((height, width))
    stripes = ((columns if position % 2 else rows) // 4 + seed) % 2
    base = np.array([[220, 40, 40], [40, 200, 60], [50, 70, 230], [230, 210, 40]])[position % 4]
    pixels = base * (0.6 + 0.4 * stripes[..., None]) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_folder(
    root: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    counts: Mapping[str, int] = COUNTS,
    val_name: str = "val",
) -> Path:
    """Write ``root/SPLIT/CLASS/NNN.png``; returns ``root``."""
    for split, count in counts.items():
        for position, name in enumerate(classes):
            folder = root / (val_name if split == "val" else split) / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed = number + 1000 * list(counts).index(split)
                class_image(position, seed).save(folder / f"{number:03d}.png")
    return root


def list_folder(root: Path) -> list[tuple[str, str, str]]:
    """Return (split folder, path relative to root, label) of every image of a written folder."""
    return [
        (path.parts[-3], path.relative_to(root).as_posix(), path.parts[-2])
        for path in sorted(root.glob("*/*/*.png"))
    ]


def write_jsonl(root: Path) -> Path:
    """List the images of :func:`write_folder` in ``root/SPLIT/annotations.jsonl``."""
    for split in {row[0] for row in list_folder(root)}:
        lines = [
            json.dumps({"image": path.partition("/")[2], "prefix": "?", "suffix": label})
            for found, path, label in list_folder(root)
            if found == split
        ]
        (root / split / "annotations.jsonl").write_text("\n".join(lines) + "\n")
    return root


def write_csv(root: Path) -> Path:
    """List the images of :func:`write_folder` in ``root/SPLIT.csv``."""
    for split in {row[0] for row in list_folder(root)}:
        with (root / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label"))
            writer.writerows(
                (path, label) for found, path, label in list_folder(root) if found == split
            )
    return root
