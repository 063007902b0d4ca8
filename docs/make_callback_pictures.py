"""Draw the pictures of docs/callbacks.md: python docs/make_callback_pictures.py

A short training on synthetic jersey numbers; the pictures are those that its callbacks wrote.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from classifier_training.data.synthetic import SynthSpec, write_dataset
from classifier_training.training.fit import train

OUT = Path(__file__).parent / "images"
EPOCHS = 8
COLORS = 128  # a palette keeps a picture below 100 KB
WIDTH = 1000


def main() -> None:
    """Train, and keep three pictures."""
    spec = SynthSpec(
        classes=("0", "00", "1", "7", "10", "11", "17", "23", "35", "77"),
        train_per_class=50,
        val_per_class=12,
        test_per_class=0,
        imbalance=3.0,
        image_size=72,
        difficulty=0.6,
        seed=1,
    )
    with tempfile.TemporaryDirectory() as scratch:
        data = write_dataset(Path(scratch) / "data", spec)
        overrides = [
            f"data.data_root={data}", "data.batch_size=32", f"trainer.max_epochs={EPOCHS}",
            "ema.score_raw=true", "callbacks.sample_visualization.samples=8",
            "callbacks.sample_visualization.worst=8",
        ]  # fmt: skip
        run = train(overrides, root="train_demo", out=Path(scratch) / "run")
        last = f"epoch={EPOCHS - 1:04d}"
        plots = run.folder.plots
        OUT.mkdir(exist_ok=True)
        _keep(plots / "history.png", "history")
        _keep(plots / "confusion_matrix" / f"{last}-normalised.png", "confusion_matrix")
        _keep(plots / "samples" / f"{last}.png", "samples")


def _keep(picture: Path, name: str) -> None:
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    image.quantize(COLORS, dither=Image.Dither.NONE).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
