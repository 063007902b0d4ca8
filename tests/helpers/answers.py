"""Predictions of made-up models, as compare reads them, without any model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.prediction_files import write_evaluated
from classifier_training.run.predictions import Predictions


def make_answers(
    true: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    name: str = "a",
    classes: int | None = None,
    losses: npt.ArrayLike | None = None,
    groups: tuple[str, ...] | None = None,
) -> Predictions:
    """Make answers to images ``00000.png, 00001.png, …`` with classes ``c0, c1, …``."""
    truth, said = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    count = classes or int(max(truth.max(), said.max())) + 1
    return Predictions(
        name=name,
        classes=tuple(f"c{index}" for index in range(count)),
        paths=tuple(f"{row:05d}.png" for row in range(len(truth))),
        true=truth,
        predicted=said,
        probabilities=None,
        losses=None if losses is None else np.asarray(losses, dtype=np.float64),
        groups=groups,
    )


def noisy(
    rng: np.random.Generator, true: npt.NDArray[np.int64], skill: float, classes: int
) -> npt.NDArray[np.int64]:
    """Answer right with probability ``skill``, else at random."""
    said = np.where(rng.random(len(true)) < skill, true, rng.integers(0, classes, len(true)))
    return np.asarray(said, dtype=np.int64)


def write_predictions_csv(
    path: Path,
    paths: list[str],
    true: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    classes: tuple[str, ...],
) -> Path:
    """Write what ``classifier evaluate`` writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        write_evaluated(file, ClassMap(classes), paths, true, probabilities)
    return path
