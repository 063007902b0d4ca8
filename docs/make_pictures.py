"""Draw docs/images/degradations.png: python docs/make_pictures.py

The images are synthetic; ranges and chain are those of ``transforms=jersey``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from classifier_training.config.compose import compose_config, make_strict
from classifier_training.config.instantiate import instantiate
from classifier_training.config.schema import TransformsConfig
from classifier_training.config.validate import validate
from classifier_training.data.dataset import seeded
from classifier_training.synthetic.render import render_crop
from classifier_training.transforms.build import build_augmentation

OUT = Path(__file__).parent / "images" / "degradations.png"
SIZE = 96
COLUMNS = 8
CHAIN_ROWS = 3
LABELS = ("23", "7", "10", "35")


def main() -> None:
    """Draw and save."""
    config = _jersey()
    degradations = [spec for spec in _leaves({"transforms": config.train}) if _range_of(spec)]
    figure = Figure(figsize=(COLUMNS * 1.5, (len(degradations) / 2 + CHAIN_ROWS) * 1.78))
    canvas = FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=[len(degradations) / 2, CHAIN_ROWS])
    upper.suptitle("Each degradation: before, then the ends and the middle of its range", size=11)
    lower.suptitle("transforms=jersey: what training sees of three crops (left)", size=11)
    _draw_degradations(upper.subplots(len(degradations) // 2, COLUMNS), degradations)
    _draw_chain(lower.subplots(CHAIN_ROWS, COLUMNS), config)
    for part in (upper, lower):
        part.subplots_adjust(left=0.01, right=0.99, top=0.89, bottom=0.02, hspace=0.22, wspace=0.06)
    OUT.parent.mkdir(exist_ok=True)
    canvas.draw()
    # All colours are kept: a palette would show bands that no degradation made.
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(OUT, optimize=True)


def _draw_degradations(grid: Any, degradations: list[dict[str, Any]]) -> None:
    cells = grid.reshape(-1, 4)
    for number, (row, spec) in enumerate(zip(cells, degradations, strict=True)):
        image = _crop(number)
        name = str(spec["_target_"]).rpartition(".")[2]
        _show(row[0], image, name)
        key, (low, high) = _range_of(spec)
        whole = isinstance(low, int) and isinstance(high, int)
        middle = (low + high) // 2 if whole else (low + high) / 2
        for axes, value in zip(row[1:], (low, middle, high), strict=True):
            step = instantiate({**spec, "p": 1.0, key: [value, value]}, nn.Module, name)
            with seeded(0, number):
                _show(axes, step(image), f"{key} {value:g}")


def _draw_chain(grid: Any, config: TransformsConfig) -> None:
    chain = build_augmentation(config)
    assert chain is not None
    for number, row in enumerate(grid):
        image = _crop(number)
        _show(row[0], image, "before")
        for position, axes in enumerate(row[1:]):
            with seeded(1, number, position):
                _show(axes, chain(image), "")


def _show(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title, size=8, pad=2)
    axes.set_axis_off()


def _crop(number: int) -> Tensor:
    label = LABELS[number % len(LABELS)]
    picture, _ = render_crop(label, image_size=SIZE, difficulty=0.0, seed=[number])
    return torch.from_numpy(np.array(picture.resize((SIZE, SIZE)))).permute(2, 0, 1)


def _leaves(spec: dict[str, Any]) -> list[dict[str, Any]]:
    inner = spec.get("transforms")
    return [spec] if inner is None else [leaf for part in inner for leaf in _leaves(part)]


def _range_of(spec: dict[str, Any]) -> Any:
    """Return (name, range) of a degradation's strength, None for other steps."""
    if ".degradations." not in str(spec["_target_"]):
        return None
    return next((key, spec[key]) for key in ("factor", "scale", "sigma", "quality") if key in spec)


def _jersey() -> TransformsConfig:
    given = ["data.data_root=/images", "transforms=jersey", f"transforms.image_size={SIZE}"]
    return validate(compose_config(make_strict(given), root="train"), allow_modules=[]).transforms


if __name__ == "__main__":
    main()
