"""The interval of the expected calibration error."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from classifier_training.evaluation.intervals import LEVEL, Estimate, design_effect
from classifier_training.metrics.probabilistic import BINS, Calibration

Floats = npt.NDArray[np.float64]

_DRAWS = 2000
_SEED = 0
_HALVINGS = 40


def ece_interval(calibration: Calibration, groups: npt.NDArray[np.int64] | None = None) -> Estimate:
    """Estimate the ECE by inverting a test.

    The measured ECE is a sum of absolute values and so too large: that of a perfectly calibrated
    network is never 0, and a plain bootstrap adds the same error again. Here the gaps of the bins
    are taken to be ``t`` times the measured ones plus normal noise of their standard error. The
    interval holds the ``t`` under which an ECE as measured is neither in the lower nor in the upper
    2.5 %; ``t = 0`` is perfect calibration, so the lower bound of a calibrated network is 0.
    """
    gaps = calibration.gaps()
    measured = calibration.error()
    errors = _standard_errors(calibration)
    influence = np.sign(gaps)[calibration.bins] * (calibration.confidence - calibration.correct)
    errors *= math.sqrt(design_effect(influence, groups))
    noise = np.random.default_rng(_SEED).standard_normal((_DRAWS, BINS)) * errors

    def quantile(factor: float, level: float) -> float:
        return float(np.quantile(np.abs(factor * gaps + noise).sum(axis=1), level))

    def factor_at(level: float) -> float:
        """Return the factor whose ``level`` quantile is what was measured, at least 0."""
        low, high = 0.0, 1.0
        if measured == 0.0 or quantile(0.0, level) >= measured:
            return 0.0
        while quantile(high, level) < measured:
            high *= 2
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if quantile(middle, level) < measured else (low, middle)
        return high

    low, high = (factor_at(level) * measured for level in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    # What noise alone can add is no part of the error; the value shown still is.
    return Estimate(measured, min(low, measured), min(1.0, max(high, measured)), "inversion")


def _standard_errors(calibration: Calibration) -> Floats:
    """Return ``(15,)`` standard errors of the gaps.

    The larger of the variance seen and the one that the confidences imply: a bin of ten right
    answers with confidence 0.9 shows no variance, but has some.
    """
    images = len(calibration.bins)
    counts = np.bincount(calibration.bins, minlength=BINS)
    gap = calibration.confidence - calibration.correct
    sums = np.bincount(calibration.bins, weights=gap, minlength=BINS)
    squares = np.bincount(calibration.bins, weights=gap**2, minlength=BINS)
    unbiased = counts / np.maximum(counts - 1, 1)
    seen = (squares - sums**2 / np.maximum(counts, 1)) * unbiased
    unsure = calibration.confidence * (1 - calibration.confidence)
    implied = np.bincount(calibration.bins, weights=unsure, minlength=BINS)
    return np.sqrt(np.maximum(np.maximum(seen, implied), 0.0)) / images
