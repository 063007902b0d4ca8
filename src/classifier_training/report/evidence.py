"""What causes are judged by, and what a cause is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from classifier_training.report.formatting import count, percent

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LEVEL = 0.05


@dataclass(frozen=True)
class SliceFact:
    """A row of ``slices.csv`` that is worse than the rest beyond chance."""

    key: str
    value: str
    images: int
    accuracy: float
    rest: float
    p_value: float


@dataclass(frozen=True)
class Epoch:
    """What a row of ``metrics.csv`` says about fitting; accuracies of train and val."""

    number: int
    train: float
    val: float


@dataclass(frozen=True)
class SplitScore:
    """Right answers of a split."""

    name: str
    right: int
    images: int

    @property
    def accuracy(self) -> float:
        """Their share."""
        return self.right / self.images


@dataclass(frozen=True)
class Evidence:
    """What the causes are judged by.

    Attributes:
        run: The run's folder, for commands.
        split: The split that the errors are of.
        classes: Names of the indices.
        true: ``(N,)`` int64.
        predicted: ``(N,)`` int64.
        confidence: ``(N,)`` probability of the answer.
        paths: ``N`` paths.
        train_counts: ``(C,)`` training images of each class; None where they are not known.
        worse_slices: Slices of the split that are worse than the rest beyond chance.
        suspects: Paths whose labels are suspect; None where labels were not examined.
        contradicting: Paths that have a near copy in another split under another label.
        history: Fitting, epoch by epoch.
        best_epoch: Number of the best epoch, from 0.
        others: Scores of the other evaluated splits.
    """

    run: str
    split: str
    classes: tuple[str, ...]
    true: Indices
    predicted: Indices
    confidence: npt.NDArray[np.float64]
    paths: tuple[str, ...]
    train_counts: Indices | None
    worse_slices: tuple[SliceFact, ...]
    suspects: frozenset[str] | None
    contradicting: frozenset[str]
    history: tuple[Epoch, ...]
    best_epoch: int
    others: tuple[SplitScore, ...]

    @property
    def wrong(self) -> Flags:
        """``(N,)``: whether the answer was wrong."""
        wrong: Flags = self.true != self.predicted
        return wrong

    @property
    def errors(self) -> int:
        """How many were."""
        return int(self.wrong.sum())

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return 1 - self.errors / len(self.true)


@dataclass(frozen=True)
class Cause:
    """A possible cause.

    Attributes:
        code: Name of the kind.
        title: In a few words.
        share: Part of the errors that it may explain, 0..1.
        evidence: What was measured.
        action: What to do next.
        command: A command or ``key=value`` to begin with.
        cell: (true, predicted) of the confusion matrix to look at, or None.
    """

    code: str
    title: str
    share: float
    evidence: str
    action: str
    command: str
    cell: tuple[int, int] | None = None


@dataclass(frozen=True)
class Excess:
    """What some images lose: as a share of all errors, and in words."""

    share: float
    said: str


def excess(evidence: Evidence, inside: Flags) -> Excess | None:
    """Return what some images lose against the rest; None when that may be chance (Fisher)."""
    wrong = evidence.wrong
    if not 0 < inside.sum() < len(inside):
        return None
    worse, of, rest, of_rest = (
        int(value)
        for value in (
            (wrong & inside).sum(),
            inside.sum(),
            (wrong & ~inside).sum(),
            (~inside).sum(),
        )
    )
    table = np.array([[worse, of - worse], [rest, of_rest - rest]])
    if stats.fisher_exact(table, alternative="greater")[1] >= LEVEL:
        return None
    lost = worse - of * rest / of_rest
    said = (
        f"{percent(worse / of)} of their {count(of, 'image')} are wrong, "
        f"{percent(rest / of_rest)} of all others"
    )
    return Excess(lost / evidence.errors, said)


def worse_slices(rows: Sequence[Mapping[str, str]]) -> tuple[SliceFact, ...]:
    """Read the rows of ``slices.csv`` that are marked as worse."""
    return tuple(
        SliceFact(
            key=row["key"],
            value=row["value"],
            images=int(row["images"]),
            accuracy=float(row["acc_top1"]),
            rest=float(row["acc_top1_rest"]),
            p_value=float(row["p_value_adjusted"]),
        )
        for row in rows
        if row["worse"] == "true"
    )
