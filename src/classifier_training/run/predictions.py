"""Predictions of a model on labelled images, as ``predictions.csv`` holds them. No torch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.errors import DataError
from classifier_training.inference.prediction_files import PROBABILITY_PREFIX
from classifier_training.system.tables import Row, read_table

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# The smallest probability that counts: softmax in float32 reaches 0, which has no logarithm.
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Predictions:
    """True and predicted class of each image, in the order of ``paths``.

    Attributes:
        name: The file or folder they come from.
        classes: Names of the indices below.
        paths: ``N`` paths, sorted, each once.
        true: ``(N,)`` int64 indices of the true classes.
        predicted: ``(N,)`` int64 indices of the predicted classes.
        probabilities: ``(N, C)`` float64, uncalibrated; None where the source has none.
        losses: ``(N,)`` float64 negative log-likelihoods of the true classes in nats; None where
            the source has neither these nor probabilities.
        groups: ``N`` names of groups whose images belong together, ``""`` for an image on its own;
            None when no groups are known.
    """

    name: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    true: Indices
    predicted: Indices
    probabilities: Floats | None
    losses: Floats | None
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def _repr_html_(self) -> str:
        from classifier_training.run.notebook import predictions_html

        return predictions_html(self)

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """``(N,)``: whether the prediction is wrong."""
        wrong: npt.NDArray[np.bool_] = self.true != self.predicted
        return wrong

    @functools.cached_property
    def confidence(self) -> Floats:
        """``(N,)`` probability of the predicted class."""
        return self._probability(self.predicted)

    @functools.cached_property
    def second(self) -> Indices:
        """``(N,)`` int64 class with the second highest probability."""
        others = self._required().copy()
        others[np.arange(len(self)), self.predicted] = -1.0
        second: Indices = others.argmax(axis=1).astype(np.int64)
        return second

    @functools.cached_property
    def second_confidence(self) -> Floats:
        """``(N,)`` probability of :attr:`second`."""
        return self._probability(self.second)

    def _probability(self, classes: Indices) -> Floats:
        return self._required()[np.arange(len(self)), classes]

    def _required(self) -> Floats:
        if self.probabilities is None:
            raise DataError(
                f"{self.name} has no probabilities",
                expected=f"a column {PROBABILITY_PREFIX}CLASS for each class",
                fix="classifier evaluate writes them",
            )
        return self.probabilities


def losses_of(probabilities: Floats, true: Indices) -> Floats:
    """Return the ``(N,)`` finite negative log-likelihoods of the true classes in nats.

    Args:
        probabilities: ``(N, C)``.
        true: ``(N,)`` class indices.
    """
    return -np.log(np.maximum(probabilities[np.arange(len(true)), true], _SMALLEST))


def read_predictions(
    path: Path, *, name: str | None = None, groups: dict[str, str] | None = None
) -> Predictions:
    """Read a ``predictions.csv``.

    Args:
        path: The file: columns ``path,true,predicted``, and ``prob:<class>`` where there are
            probabilities.
        name: What to call them; by default the path.
        groups: Names of groups by image path.

    Raises:
        DataError: The file is missing or damaged, or has no true classes.
    """
    fix = "give what `classifier evaluate` writes: evaluation/SPLIT/predictions.csv"
    rows = read_table(path, ("path", "true", "predicted"), fix=fix)
    if not rows:
        raise DataError(f"{path} has no rows", expected="one row per image", fix=fix)
    rows.sort(key=lambda row: row["path"])
    named = [
        column.removeprefix(PROBABILITY_PREFIX)
        for column in rows[0]
        if column.startswith(PROBABILITY_PREFIX)
    ]
    seen = {row[column] for row in rows for column in ("true", "predicted")}
    classes = (*named, *sorted(seen - set(named)))
    index = {label: number for number, label in enumerate(classes)}
    paths = tuple(row["path"] for row in rows)
    _refuse_repeats(paths, path)
    true = np.array([index[row["true"]] for row in rows], dtype=np.int64)
    probabilities = _probabilities(rows, classes, path) if len(classes) == len(named) else None
    return Predictions(
        name=str(path) if name is None else name,
        classes=classes,
        paths=paths,
        true=true,
        predicted=np.array([index[row["predicted"]] for row in rows], dtype=np.int64),
        probabilities=probabilities,
        losses=None if probabilities is None else losses_of(probabilities, true),
        groups=tuple(groups.get(image, "") for image in paths) if groups else None,
    )


def _refuse_repeats(paths: Sequence[str], source: Path) -> None:
    for first, second in itertools.pairwise(paths):
        if first == second:
            raise DataError(
                f"{source} lists {first} twice",
                expected="one row per image",
                fix="remove the repeated row",
            )


def _probabilities(rows: list[Row], classes: tuple[str, ...], path: Path) -> Floats:
    columns = [PROBABILITY_PREFIX + name for name in classes]
    try:
        found = np.array([[float(row[column]) for column in columns] for row in rows])
    except ValueError as error:
        raise DataError(
            f"{path} holds a probability that is not a number: {error}",
            expected="numbers in 0..1",
            fix="restore the file, or evaluate again",
        ) from error
    wrong = np.argwhere(~((found >= 0) & (found <= 1 + 1e-6)))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"{path} gives {rows[row]['path']} the probability {found[row, column]}",
            expected="numbers in 0..1",
            fix="restore the file, or evaluate again",
        )
    return found
