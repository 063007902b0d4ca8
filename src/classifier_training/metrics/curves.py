"""Curves of a split: reliability, and risk against coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifier_training.metrics.probabilistic import BINS, CalibrationError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of the reliability diagram. ``accuracy`` and ``confidence`` are means."""

    low: float
    high: float
    images: int
    hits: int
    confidence: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.hits / self.images


def reliability_bins(calibration: CalibrationError) -> list[ReliabilityBin]:
    """Return the bins that hold images, by rising confidence."""
    images = np.bincount(calibration.bins, minlength=BINS)
    hits = np.bincount(calibration.bins, weights=calibration.correct, minlength=BINS)
    confidence = np.bincount(calibration.bins, weights=calibration.confidence, minlength=BINS)
    return [
        ReliabilityBin(
            index / BINS,
            (index + 1) / BINS,
            int(images[index]),
            int(hits[index]),
            float(confidence[index] / images[index]),
        )
        for index in np.flatnonzero(images)
    ]


@dataclass(frozen=True)
class RiskCoverage:
    """Error rate among the answers whose confidence is at least a threshold.

    Attributes:
        thresholds: ``(K,)`` distinct confidences, falling.
        coverage: ``(K,)`` share of images that are answered.
        risk: ``(K,)`` share of wrong answers among them.
        area: Mean risk over coverages (AURC, Geifman et al. 2019); 0 is perfect. Images of equal
            confidence are exchangeable: each counts with the mean over their orders.
    """

    thresholds: Floats
    coverage: Floats
    risk: Floats
    area: float


def risk_coverage(confidence: Floats, correct: npt.NDArray[np.bool_]) -> RiskCoverage:
    """Compute the curve from ``(N,)`` confidences and whether the answers were right."""
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    last_of_tie = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    answered = last_of_tie + 1
    wrong = np.cumsum(~correct[order])[last_of_tie]
    # Inside a tie the expected number of errors grows linearly.
    everywhere = np.arange(1, len(falling) + 1)
    expected = np.interp(everywhere, np.append(0, answered), np.append(0, wrong))
    return RiskCoverage(
        falling[last_of_tie],
        answered / len(falling),
        wrong / answered,
        float((expected / everywhere).mean()),
    )
