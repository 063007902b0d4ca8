"""How an exported model stands corrupted copies of labelled images.

What is measured is what is deployed: the ONNX file, with the preprocessing of its sidecar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from classifier_training.errors import ConfigError
from classifier_training.evaluation.labelled_images import LabelledImages
from classifier_training.evaluation.predictions import group_indices
from classifier_training.inference.images import read_image
from classifier_training.inference.predictor import Predictor
from classifier_training.metrics.bootstrap import macro_intervals
from classifier_training.metrics.intervals import Estimate, design_effect, wilson
from classifier_training.metrics.paired import (
    group_draws,
    percentiles,
    weighted_scores,
)
from classifier_training.plots.style import save_figure
from classifier_training.system.files import write_json
from classifier_training.system.tables import write_table
from classifier_training.transforms.corruptions import CORRUPTIONS, SEVERITIES, Corruption

_RESAMPLES = 1000
_COLUMNS = (
    *("corruption", "severity", "amount", "unit", "images"),
    *("acc_top1", "acc_top1_low", "acc_top1_high", "acc_top1_change"),
    *("acc_top1_change_low", "acc_top1_change_high"),
    *("f1_macro", "f1_macro_low", "f1_macro_high", "f1_macro_change"),
    *("f1_macro_change_low", "f1_macro_change_high"),
)

Bounds = tuple[float, float, float]


@dataclass(frozen=True)
class CorruptedScore:
    """Scores under one corruption of one severity.

    Attributes:
        corruption: Its name, ``clean`` for the images as they are.
        severity: 1..3, 0 for clean.
        scores: (value, low, high) of ``acc_top1`` and ``f1_macro``.
        changes: The same of the difference to clean on the same images.
    """

    corruption: str
    severity: int
    scores: dict[str, Bounds]
    changes: dict[str, Bounds]


@dataclass(frozen=True)
class Robustness:
    """All conditions, clean first.

    Attributes:
        images: Number of images.
        conditions: One a corruption and severity.
        mean_accuracy: Accuracy averaged over all corruptions and severities.
        seed: Of what is random in the corruptions.
    """

    images: int
    conditions: tuple[CorruptedScore, ...]
    mean_accuracy: float
    seed: int

    @property
    def clean(self) -> CorruptedScore:
        """The images as they are."""
        return self.conditions[0]


def select(names: Sequence[str]) -> tuple[Corruption, ...]:
    """Return the corruptions of these names, all without names.

    Raises:
        ConfigError: A name is unknown.
    """
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown:
        raise ConfigError(
            f"--only {unknown[0]} is no corruption",
            expected=f"one of {', '.join(CORRUPTIONS)}",
            fix="correct it, or leave --only out for all",
        )
    return tuple(item for name, item in CORRUPTIONS.items() if not names or name in names)


def measure(
    predictor: Predictor,
    images: LabelledImages,
    corruptions: Sequence[Corruption],
    *,
    seed: int = 0,
    on_images: Callable[[int, int], None],
) -> Robustness:
    """Let a model answer each image clean and under each corruption; decode each image once.

    Args:
        predictor: The deployed model.
        images: Labelled with its classes.
        corruptions: Which ones.
        seed: Of what is random in them.
        on_images: Called with (images done, images in all).

    Raises:
        DataError: An image cannot be read, or a label is no class of the model.
    """
    true = images.indices(predictor.class_map)
    kinds = [(item, severity) for item in corruptions for severity in SEVERITIES]
    predicted = np.empty((1 + len(kinds), len(images)), dtype=np.int64)
    for row, (path, file) in enumerate(zip(images.paths, images.files, strict=True)):
        image = read_image(file)
        variants = _variants(image, kinds, path, seed)
        pixels = np.stack([predictor.spec.resize_image(variant) for variant in variants])
        predicted[:, row] = predictor.logits(pixels).argmax(axis=1)
        on_images(row + 1, len(images))
    names = [("clean", 0), *((item.name, severity) for item, severity in kinds)]
    conditions = _score(true, predicted, names, images.groups, len(predictor.class_map))
    spoilt = [item.scores["acc_top1"][0] for item in conditions[1:]]
    return Robustness(len(images), conditions, float(np.mean(spoilt)), seed)


def write_robustness(found: Robustness, folder: Path) -> None:
    """Write ``robustness.csv`` and ``robustness.json``."""
    write_table(
        folder / "robustness.csv", _COLUMNS, (_cells(item, found) for item in found.conditions)
    )
    write_json(folder / "robustness.json", _to_json(found))


def _cells(item: CorruptedScore, found: Robustness) -> tuple[object, ...]:
    amount, unit = _amount(item)
    numbers = [
        f"{value:.6f}"
        for name in ("acc_top1", "f1_macro")
        for value in (*item.scores[name], *item.changes[name])
    ]
    return item.corruption, item.severity, amount, unit, found.images, *numbers


def _variants(
    image: Image.Image, kinds: Sequence[tuple[Corruption, int]], path: str, seed: int
) -> list[Image.Image]:
    spoilt = [item.apply(image, severity, name=path, seed=seed) for item, severity in kinds]
    return [image, *spoilt]


def _score(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    names: Sequence[tuple[str, int]],
    groups: tuple[str, ...] | None,
    classes: int,
) -> tuple[CorruptedScore, ...]:
    """Score ``(K, N)`` answers, of which the first row is clean, on the same resamples."""
    numbers = group_indices(groups, len(true))
    grouped = None if int(numbers.max()) + 1 == len(true) else numbers
    weights = np.concatenate(list(group_draws(numbers, _RESAMPLES, np.random.default_rng(0))))

    def drawn(row: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
        return weighted_scores(true, row, None, weights, classes).headline

    clean, clean_draws = _estimates(true, predicted[0], grouped, classes), drawn(predicted[0])
    conditions = []
    for (name, severity), row in zip(names, predicted, strict=True):
        found, draws = _estimates(true, row, grouped, classes), drawn(row)
        scores = {metric: (item.value, item.low, item.high) for metric, item in found.items()}
        changes = {
            metric: (
                item.value - clean[metric].value,
                *_bounds(draws[metric] - clean_draws[metric]),
            )
            for metric, item in found.items()
        }
        conditions.append(CorruptedScore(name, severity, scores, changes))
    return tuple(conditions)


def _estimates(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64] | None,
    classes: int,
) -> dict[str, Estimate]:
    """Estimate as ``classifier evaluate`` does."""
    right = predicted == true
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    effect = design_effect(right.astype(np.float64), groups)
    return {
        "acc_top1": wilson(int(right.sum()), len(true), effect),
        "f1_macro": macro_intervals(confusion, true, predicted, groups)["f1_macro"],
    }


def _bounds(draws: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = percentiles(draws)
    return float(low), float(high)


def _amount(item: CorruptedScore) -> tuple[float | str, str]:
    if item.severity == 0:
        return "", ""
    corruption = CORRUPTIONS[item.corruption]
    return corruption.amounts[item.severity - 1], corruption.unit


def _to_json(found: Robustness) -> dict[str, Any]:
    def estimate(bounds: Bounds) -> dict[str, float]:
        return dict(zip(("value", "low", "high"), bounds, strict=True))

    return {
        "schema_version": 1,
        "images": found.images,
        "seed": found.seed,
        "mean_corruption_accuracy": found.mean_accuracy,
        "conditions": [
            {
                "corruption": item.corruption,
                "severity": item.severity,
                "amount": _amount(item)[0] or None,
                "unit": _amount(item)[1] or None,
                "metrics": {name: estimate(value) for name, value in item.scores.items()},
                "change_from_clean": {
                    name: estimate(value) for name, value in item.changes.items()
                },
            }
            for item in found.conditions
        ],
    }


# Light to dark with the severity, readable without colours.
_SHADES = ("#6baed6", "#2171b5", "#08306b")
_TILE = 160  # pixels of an example's longer side


def draw_scores(found: Robustness, path: Path) -> None:
    """Draw accuracy and macro F1 with intervals, a row a corruption, clean as a band."""
    names = list(dict.fromkeys(item.corruption for item in found.conditions[1:]))
    figure = Figure(figsize=(11, 1.9 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, metric, title in ((left, "acc_top1", "accuracy"), (right, "f1_macro", "macro F1")):
        value, low, high = found.clean.scores[metric]
        axes.axvspan(low, high, color="0.9", zorder=0)
        axes.axvline(value, color="0.35", linewidth=1, label="clean")
        for severity, shade in zip(SEVERITIES, _SHADES, strict=True):
            rows = [item for item in found.conditions[1:] if item.severity == severity]
            _draw_severity(axes, rows, names, metric, severity, shade)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"{title} (bars and band: 95 % interval)")
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
    left.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    left.set_ylim(len(names) - 0.4, -0.6)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    save_figure(figure, path, dpi=130)


def draw_examples(
    image: Image.Image, name: str, corruptions: Sequence[Corruption], path: Path, *, seed: int
) -> None:
    """Show one image under each corruption and severity."""
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    columns = len(corruptions)
    figure = Figure(figsize=(1.25 * columns + 0.9, 5.6), layout="constrained")
    grid = figure.subplots(len(SEVERITIES) + 1, columns, squeeze=False)
    for column, corruption in enumerate(corruptions):
        for row in range(len(SEVERITIES) + 1):
            shown = corruption.apply(image, row, name=name, seed=seed) if row else image
            axes = grid[row][column]
            axes.imshow(shown.resize(size, Image.Resampling.LANCZOS))
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(f"severity {row}" if row else "clean", fontsize=8)
        grid[0][column].set_title(corruption.name.replace("_", " "), fontsize=8)
    save_figure(figure, path, dpi=130)


def _draw_severity(
    axes: object,
    rows: Sequence[CorruptedScore],
    names: Sequence[str],
    metric: str,
    severity: int,
    shade: str,
) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    scores = [item.scores[metric] for item in rows]
    values = [value for value, _, _ in scores]
    # A percentile interval need not hold the score itself.
    below = [max(0.0, value - low) for value, low, _ in scores]
    above = [max(0.0, high - value) for value, _, high in scores]
    places = [names.index(item.corruption) + 0.24 * (severity - 2) for item in rows]
    axes.errorbar(
        values,
        places,
        xerr=[below, above],
        fmt="o",
        markersize=4,
        linewidth=1.2,
        color=shade,
        label=f"severity {severity}",
    )
