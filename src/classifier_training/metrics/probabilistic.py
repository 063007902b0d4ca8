"""Scores of probabilities: log loss, calibration error, area under the ROC curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

BINS = 15


def log_losses(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Floats:
    """Return ``(N,)`` negative log-likelihoods of ``(N, C)`` logits and ``(N,)`` labels."""
    log_probabilities = special.log_softmax(logits.astype(np.float64), axis=1)
    return -log_probabilities[np.arange(len(labels)), labels]


@dataclass(frozen=True)
class CalibrationError:
    """How far confidence and accuracy lie apart in 15 equal bins of confidence.

    Attributes:
        bins: ``(N,)`` int64 bin of each image; bin ``b`` is ``(b/15, (b+1)/15]``.
        confidence: ``(N,)`` top probability.
        correct: ``(N,)`` bool.
    """

    bins: npt.NDArray[np.int64]
    confidence: Floats
    correct: npt.NDArray[np.bool_]

    def gaps(self) -> Floats:
        """Return ``(15,)`` sums over a bin of confidence less correctness, over all images."""
        sums = np.bincount(self.bins, weights=self.confidence - self.correct, minlength=BINS)
        return sums / len(self.bins)

    def error(self) -> float:
        """Return the expected calibration error (Guo et al. 2017, eq. 3)."""
        return float(np.abs(self.gaps()).sum())


def calibration(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> CalibrationError:
    """Sort ``(N, C)`` probabilities of ``(N,)`` labels into bins by the top one."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return CalibrationError(bins, confidence, probabilities.argmax(axis=1) == labels)


def expected_calibration_error(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> float:
    """Return the top-label ECE over 15 equal bins (Guo et al. 2017, eq. 3).

    Args:
        probabilities: ``(N, C)``.
        labels: ``(N,)`` class indices.
    """
    return calibration(probabilities, labels).error()


@dataclass(frozen=True)
class RocAreas:
    """One-versus-rest areas under the ROC curve, with what each image gives to them.

    Attributes:
        areas: ``(C,)`` float64, NaN for a class that has no image or no counter-example.
        deviations: ``(N,)`` float64: how far an image's placement lies from the mean of its side,
            over the size of that side, averaged over classes. Their sum is 0, and the sum of
            their squares the variance of the mean area (DeLong et al. 1988).
        own_variances: ``(C,)`` float64 variance of each area, NaN where that is.
    """

    areas: Floats
    deviations: Floats
    own_variances: Floats

    @property
    def macro(self) -> float | None:
        """The mean over classes that have an area; None when none has."""
        defined = self.areas[~np.isnan(self.areas)]
        return float(defined.mean()) if len(defined) else None


def roc_areas(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> RocAreas:
    """Compute areas by placements: the share of the other side that an image is ranked right of.

    A tie counts one half (Hanley & McNeil 1982), as in ``sklearn.metrics.roc_auc_score``.

    Args:
        probabilities: ``(N, C)``.
        labels: ``(N,)`` class indices.
    """
    images, classes = probabilities.shape
    areas, variances = np.full((2, classes), np.nan)
    deviations = np.zeros(images)
    for index in range(classes):
        positive = labels == index
        hits, others = int(positive.sum()), int((~positive).sum())
        if not hits or not others:
            continue
        scores = probabilities[:, index]
        above = _share_below(scores[positive], scores[~positive])
        below = 1 - _share_below(scores[~positive], scores[positive])
        areas[index] = above.mean()
        of_hits, of_others = (above - above.mean()) / hits, (below - below.mean()) / others
        variances[index] = of_hits @ of_hits + of_others @ of_others
        deviations[positive] += of_hits
        deviations[~positive] += of_others
    defined = max(1, int((~np.isnan(areas)).sum()))
    return RocAreas(areas, deviations / defined, variances)


def auroc_macro(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> float | None:
    """Return the one-versus-rest area under the ROC curve, averaged over classes with images.

    None when no class has both images and counter-examples.
    """
    return roc_areas(probabilities, labels).macro


def _share_below(values: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> Floats:
    """Return for each value the share of the others that are smaller, ties counted one half."""
    ordered = np.sort(others)
    smaller = np.searchsorted(ordered, values, side="left")
    not_larger = np.searchsorted(ordered, values, side="right")
    return (smaller + not_larger) / (2 * len(ordered))
