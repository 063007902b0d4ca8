"""Draw the pictures of docs/callbacks.md: python docs/make_callback_pictures.py

They are drawn by the functions that the callbacks call. The jerseys are synthetic, and what a
network says of them is invented: labels that share a digit are confused, less from epoch to epoch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from classifier_training.plots.confusion import draw_confusion
from classifier_training.plots.history import draw_history
from classifier_training.plots.samples import Sample, draw_samples
from classifier_training.synthetic.render import render_crop

OUT = Path(__file__).parent / "images"
CLASSES = ("0", "00", "1", "7", "10", "11", "17", "23", "35", "77")
EACH = 40
EPOCHS = 20
COLORS = 96  # a palette keeps a picture below 100 KB
WIDTH = 1000


def main() -> None:
    """Draw and save three pictures."""
    OUT.mkdir(exist_ok=True)
    rng = np.random.default_rng(4)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "picture.png"
        draw_history(_rows(rng), 15, "val/f1_macro", path)
        _keep(path, "history")
        draw_confusion(_counts(rng), CLASSES, path, "shares")
        _keep(path, "confusion_matrix")
        fixed = [_sample(label, label, rng.uniform(0.5, 1), rng) for label in CLASSES[:7]]
        fixed.append(_sample("23", "35", 0.41, rng))
        pairs = (("0", "00"), ("17", "7"), ("11", "1"), ("10", "0"), ("35", "23"), ("77", "7"))
        worst = [_sample(*pair, 0.97 - 0.05 * number, rng) for number, pair in enumerate(pairs)]
        parts = [
            ("The same validation images every epoch", fixed),
            ("The 6 most confident of 31 mistakes", worst),
        ]
        draw_samples(parts, path)
        _keep(path, "samples")


def _rows(rng: np.random.Generator) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for epoch in range(EPOCHS):
        row = {"epoch": epoch, "lr": 1e-3 * (1 + np.cos(np.pi * (epoch + 1) / EPOCHS)) / 2}
        for prefix, final, pace in (
            ("train", 0.9, 4.0),
            ("val", 0.93, 3.0),
            ("val_raw", 0.92, 3.0),
        ):
            jitter = 0.02 if prefix == "val_raw" else 0.005
            top1 = final * (1 - 0.85 * np.exp(-(epoch + 1) / pace)) + rng.normal(0, jitter)
            best = {15: 0.004}.get(epoch, 0.0) * (prefix == "val")
            row |= {
                f"{prefix}/acc_top1": float(top1),
                f"{prefix}/f1_macro": float(top1 - 0.02 + best),
                f"{prefix}/loss": float(2.4 * (1 - top1) + 0.1),
            }
        rows.append(row)
    return rows


def _counts(rng: np.random.Generator) -> np.ndarray:
    chances = np.array(
        [
            [60 if one == other else 4 * len(set(one) & set(other)) + 0.2 for other in CLASSES]
            for one in CLASSES
        ]
    )
    return np.array([rng.multinomial(EACH, row / row.sum()) for row in chances])


def _sample(true: str, predicted: str, confidence: float, rng: np.random.Generator) -> Sample:
    seed = [int(rng.integers(1000))]
    picture, _ = render_crop(true, image_size=144, difficulty=0.5, seed=seed)
    return Sample(np.array(picture.resize((144, 144))), true, predicted, confidence)


def _keep(picture: Path, name: str) -> None:
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    image.quantize(COLORS, dither=Image.Dither.NONE).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
