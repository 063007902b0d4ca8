"""Scores that follow from a confusion matrix alone, as scikit-learn defines them.

``matrix[i, j]`` counts images of class ``i`` that were called ``j``. Classes without images have
support 0; macro averages follow scikit-learn in which classes they run over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PerClass:
    """Scores of each class, ``(C,)`` float64 (support int64). Undefined ones are 0."""

    precision: Tensor
    recall: Tensor
    f1: Tensor
    support: Tensor
    predicted: Tensor


def per_class(matrix: Tensor) -> PerClass:
    """Compute precision, recall, F1 and support of each class from ``(C, C)`` int64 counts."""
    counts = matrix.double()
    hits = counts.diagonal()
    support = counts.sum(dim=1)
    predicted = counts.sum(dim=0)
    return PerClass(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, support + predicted),
        support=support.long(),
        predicted=predicted.long(),
    )


def macro_scores(matrix: Tensor) -> dict[str, Tensor]:
    """Return scalar float64 scores of ``(C, C)`` int64 counts.

    ``acc_top1`` is micro accuracy; ``acc_macro`` the mean recall over classes that have images
    (``balanced_accuracy_score``); ``f1_macro`` and ``precision_macro`` run over classes that have
    images or were predicted (``average="macro"``).
    """
    scores = per_class(matrix)
    has_images = scores.support > 0
    occurs = has_images | (scores.predicted > 0)
    return {
        "acc_top1": _ratio(matrix.diagonal().sum().double(), matrix.sum().double()),
        "acc_macro": _mean_over(scores.recall, has_images),
        "f1_macro": _mean_over(scores.f1, occurs),
        "precision_macro": _mean_over(scores.precision, occurs),
    }


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), torch.zeros_like(part))


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    return _ratio((values * mask).sum(), mask.sum().double())
