"""The confusion matrix as a picture that can be asked, and which images stand behind its cells."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classifier_training.plots.class_names import short_name
from classifier_training.run.predictions import Predictions
from classifier_training.run.reader import StoredEvaluation

# Images listed behind a cell; the rest is in predictions.csv.
MOST_WRONG, MOST_RIGHT = 24, 6
MOST_LISTED = 4000
_MOST_NAMED = 60  # classes whose names fit beside the matrix
_MOST_COUNTED = 45  # classes whose counts fit into its cells
_MOST_PAIRS = 12
_LETTER = 6.8


@dataclass(frozen=True)
class Cell:
    """A cell with images in it: where it lies, its count, and how strong its colour is (0..1)."""

    row: int
    column: int
    count: int
    strength: float


@dataclass(frozen=True)
class Confused:
    """Images of one class that were taken for another."""

    row: int
    column: int
    count: int
    share: float


@dataclass(frozen=True)
class Matrix:
    """The matrix as the template draws it; sizes in pixels.

    Attributes:
        names: Of the classes, in full.
        labels: Shortened, empty when there are too many.
        side: Of a cell.
        margin: Room for the labels.
        cells: Those with images.
        is_level: Whether the labels of the columns fit side by side.
        shows_counts: Whether counts are written into cells.
        pairs: The most frequent confusions, most first.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    side: int
    margin: int
    cells: tuple[Cell, ...]
    is_level: bool
    shows_counts: bool
    pairs: tuple[Confused, ...]

    @property
    def size(self) -> int:
        """Pixels of all cells side by side."""
        return self.side * len(self.names)


def matrix_of(split: StoredEvaluation) -> Matrix:
    """Lay out the matrix of a split: readable with 2 classes, with 43 and with 300."""
    names, counts = split.classes, split.confusion
    support = counts.sum(axis=1)
    cells = tuple(
        Cell(
            int(row),
            int(column),
            int(counts[row, column]),
            # The square root keeps single mistakes visible.
            round(math.sqrt(counts[row, column] / support[row]), 3),
        )
        for row, column in np.argwhere(counts)
    )
    wrong = [cell for cell in cells if cell.row != cell.column]
    wrong.sort(key=lambda cell: (-cell.count, -cell.strength, cell.row, cell.column))
    labels = tuple(short_name(name, 12) for name in names) if len(names) <= _MOST_NAMED else ()
    width = _LETTER * max(map(len, labels), default=0)
    return Matrix(
        names=names,
        labels=labels,
        side=_side(len(names)),
        margin=max(24, round(10 + width)) if labels else 4,
        cells=cells,
        is_level=width < _side(len(names)) - 4,
        shows_counts=len(names) <= _MOST_COUNTED,
        pairs=tuple(
            Confused(cell.row, cell.column, cell.count, cell.count / int(support[cell.row]))
            for cell in wrong[:_MOST_PAIRS]
        ),
    )


def _side(classes: int) -> int:
    if classes <= 4:
        return 84
    if classes <= 12:
        return 54
    return max(3, min(32, 720 // classes))


def images_behind(answered: Predictions) -> list[int]:
    """Return the rows that are listed behind cells, the most wanted first.

    Of each cell the most confident; mistakes before right answers, and one of each cell before the
    second of any, so that a bounded number shows something in every cell.
    """
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in np.argsort(-answered.confidence, kind="stable"):
        cells[int(answered.true[row]), int(answered.predicted[row])].append(int(row))
    wrong = [rows[:MOST_WRONG] for (true, said), rows in sorted(cells.items()) if true != said]
    right = [rows[:MOST_RIGHT] for (true, said), rows in sorted(cells.items()) if true == said]
    return [*_in_turn(wrong), *_in_turn(right)][:MOST_LISTED]


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
    rounds = itertools.zip_longest(*lists)
    return [row for taken in rounds for row in taken if row is not None]
