"""Scores that follow from a confusion matrix alone, as scikit-learn defines them.

``matrix[i, j]`` counts images of class ``i`` that were called ``j``. Classes without images have
support 0; macro averages follow scikit-learn in which classes they run over.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PerClass:
    """Scores of each class, ``(..., C)`` float64 (counts int64). Undefined ones are 0."""

    precision: Tensor
    recall: Tensor
    f1: Tensor
    hits: Tensor
    support: Tensor
    predicted: Tensor


def per_class(matrix: Tensor) -> PerClass:
    """Compute precision, recall, F1 and support of each class from ``(C, C)`` int64 counts."""
    return per_class_of(matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0))


def per_class_of(hits: Tensor, support: Tensor, predicted: Tensor) -> PerClass:
    """Compute the same from ``(..., C)`` int64 counts of right, actual and predicted images."""
    return PerClass(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, support + predicted),
        hits=hits,
        support=support,
        predicted=predicted,
    )


def macro_scores(matrix: Tensor) -> dict[str, Tensor]:
    """Return scalar float64 scores of ``(C, C)`` int64 counts; see :func:`macro_of`."""
    return macro_of(per_class(matrix))


def macro_of(scores: PerClass) -> dict[str, Tensor]:
    """Average ``(..., C)`` scores of classes to ``(...)`` float64.

    ``acc_top1`` is micro accuracy; ``acc_macro`` the mean recall over classes that have images
    (``balanced_accuracy_score``); ``f1_macro`` and ``precision_macro`` run over classes that have
    images or were predicted (``average="macro"``).
    """
    has_images = scores.support > 0
    occurs = has_images | (scores.predicted > 0)
    return {
        "acc_top1": _ratio(scores.hits.sum(dim=-1), scores.support.sum(dim=-1)),
        "acc_macro": _mean_over(scores.recall, has_images),
        "f1_macro": _mean_over(scores.f1, occurs),
        "precision_macro": _mean_over(scores.precision, occurs),
    }


def most_confused(matrix: Tensor, most: int) -> list[tuple[int, int]]:
    """Return the pairs (true, predicted) with the most errors in ``(C, C)`` int64 counts.

    At most ``most``, the worst first; of equal counts the larger share of its class comes first.
    """
    support = matrix.sum(dim=1)
    pairs = [(int(row), int(column)) for row, column in matrix.nonzero() if row != column]
    pairs.sort(key=lambda at: (-int(matrix[at]), int(support[at[0]]), at))
    return pairs[:most]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / whole.double().clamp_min(1)  # where whole is 0, so is part


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    return _ratio((values * mask).sum(dim=-1), mask.sum(dim=-1))
