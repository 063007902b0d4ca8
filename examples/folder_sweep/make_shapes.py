"""Draw a folder per class: python make_shapes.py FOLDER [--images 60] [--seed 0]."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle")
SIDE = 64


def draw(shape: str, rng: random.Random) -> Image.Image:
    """Return one picture: a shape of random place, size and colours, with noise around it."""
    image = Image.effect_noise((SIDE, SIDE), 60).convert("RGB")
    pen = ImageDraw.Draw(image)
    size = rng.randint(20, 40)
    left, top = (rng.randint(0, SIDE - size) for _ in range(2))
    colour = tuple(rng.randint(0, 255) for _ in range(3))
    box = (left, top, left + size, top + size)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(left, top + size), (left + size, top + size), (left + size / 2, top)], colour)
    return image


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60, help="of each class")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    for shape in SHAPES:
        for number in range(asked.images):
            label = rng.choice(SHAPES) if rng.random() < 0.05 else shape
            path = asked.folder / label / f"{shape}_{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(shape, rng).save(path)


if __name__ == "__main__":
    main()
