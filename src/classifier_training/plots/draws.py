"""``plots/sampler_distribution.png``: images, expected and drawn counts of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from classifier_training.data.sampling import ClassDraws
from classifier_training.plots.class_names import bar_width, name_classes, room_for_names
from classifier_training.plots.style import save_figure

_WIDTH, _HEIGHT = 12.0, 4.0  # inches


def draw_draws(names: Sequence[str], epochs: Sequence[ClassDraws], path: Path) -> None:
    """Draw the mean over epochs, and the least and the most, beside images and expected draws.

    Args:
        names: ``C`` class names.
        epochs: At least one epoch's counts.
        path: The PNG to write, atomically.
    """
    order = np.argsort(-epochs[0].images, kind="stable")
    drawn = np.array([draws.drawn[order] for draws in epochs])
    mean = drawn.mean(axis=0)
    places = np.arange(len(order))
    shown = [names[index] for index in order]
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    bottom = (room_for_names(shown) + 0.1) / _HEIGHT
    figure.subplots_adjust(left=0.06, right=0.985, top=0.9, bottom=bottom)
    axes = figure.subplots()
    width = bar_width(shown)
    axes.bar(places, epochs[0].images[order], width, color="#D0D0D0", label="images")
    axes.bar(places, mean, 0.55 * width, color="#0072B2", label="drawn an epoch (mean)")
    if len(epochs) > 1:
        axes.vlines(
            places, drawn.min(axis=0), drawn.max(axis=0), color="black", lw=1, label="least to most"
        )
    axes.step(
        np.append(places - 0.5, places[-1] + 0.5),
        np.append(epochs[0].expected[order], epochs[0].expected[order][-1]),
        where="post",
        color="#D55E00",
        lw=1.5,
        label="expected",
    )
    axes.set_ylabel("images")
    axes.set_ylim(bottom=0)
    many = "epochs" if len(epochs) > 1 else "epoch"
    axes.set_title(f"What the sampler drew in {len(epochs)} {many}", loc="left", fontsize=10)
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="upper right")
    name_classes(axes, shown, "classes, the most frequent first")
    save_figure(figure, path, dpi=100)
