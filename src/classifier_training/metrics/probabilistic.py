"""Scores of probabilities: log loss, calibration error, area under the ROC curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special, stats

_BINS = 15


def log_losses(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return ``(N,)`` negative log-likelihoods of ``(N, C)`` logits and ``(N,)`` labels."""
    log_probabilities = special.log_softmax(logits.astype(np.float64), axis=1)
    return -log_probabilities[np.arange(len(labels)), labels]


def expected_calibration_error(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> float:
    """Return the top-label ECE over 15 equal bins (Guo et al. 2017, eq. 3).

    Args:
        probabilities: ``(N, C)``.
        labels: ``(N,)`` class indices.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def auroc_macro(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> float | None:
    """Return the one-versus-rest area under the ROC curve, averaged over classes with images.

    By the rank-sum identity (Hanley & McNeil 1982); None when no class has both images and
    counter-examples.
    """
    areas = []
    exact = probabilities.astype(np.float64)  # newer scipy ranks in the precision of its input
    for index in range(probabilities.shape[1]):
        positive = labels == index
        hits, others = int(positive.sum()), int((~positive).sum())
        if hits and others:
            ranks = stats.rankdata(exact[:, index])[positive].sum()
            areas.append((ranks - hits * (hits + 1) / 2) / (hits * others))
    return float(np.mean(areas)) if areas else None
