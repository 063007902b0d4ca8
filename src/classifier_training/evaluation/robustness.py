"""How an exported model stands corrupted copies of labelled images.

What is measured is what is deployed: the ONNX file, with the preprocessing of its sidecar.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifier_training.errors import ConfigError
from classifier_training.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from classifier_training.evaluation.intervals import Estimate, design_effect, wilson
from classifier_training.evaluation.labelled import LabelledImages
from classifier_training.evaluation.macro_bootstrap import macro_intervals
from classifier_training.evaluation.paired_scores import (
    group_draws,
    percentiles,
    weighted_scores,
)
from classifier_training.evaluation.pairing import group_indices
from classifier_training.runtime.files import replacing, write_json
from classifier_training.runtime.images import read_image
from classifier_training.runtime.predictor import Predictor

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
class Condition:
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
    conditions: tuple[Condition, ...]
    mean_accuracy: float
    seed: int

    @property
    def clean(self) -> Condition:
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
            mend="correct it, or leave --only out for all",
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
    with (
        replacing(folder / "robustness.csv") as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for item in found.conditions:
            amount, unit = _amount(item)
            numbers = [
                f"{value:.6f}"
                for name in ("acc_top1", "f1_macro")
                for value in (*item.scores[name], *item.changes[name])
            ]
            writer.writerow((item.corruption, item.severity, amount, unit, found.images, *numbers))
    write_json(folder / "robustness.json", _to_json(found))


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
) -> tuple[Condition, ...]:
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
        conditions.append(Condition(name, severity, scores, changes))
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


def _amount(item: Condition) -> tuple[float | str, str]:
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
