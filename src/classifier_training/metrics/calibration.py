"""Fit a temperature, a threshold for "unsure", conformal sets and an energy limit on val.

Each function says None with a reason, instead of a number, where the images cannot support one.
``runtime.calibration`` applies the results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

# Fewer images would fit noise: a temperature, a threshold and a tail all rest on a few of them.
LEAST_IMAGES = 20

# 1/T is searched in here; beyond it, softmax is uniform or one-hot for any network.
_LOWEST_BETA, _HIGHEST_BETA = 1e-2, 1e2


@dataclass(frozen=True)
class Fitted:
    """A number, or why there is none.

    Attributes:
        value: The number; None when the images cannot support one.
        reason: Why not; None when there is a number.
    """

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class CoverageCurve:
    """What answering only above a confidence brings, for each confidence that occurs.

    Attributes:
        thresholds: ``(K,)`` float64, descending: the least confidence that is answered.
        answered: ``(K,)`` int64 images with at least that confidence.
        right: ``(K,)`` int64 right answers among them.
        images: Number of all images.
    """

    thresholds: npt.NDArray[np.float64]
    answered: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    images: int

    @property
    def coverage(self) -> npt.NDArray[np.float64]:
        """``(K,)``: share of images that are answered."""
        return self.answered / self.images

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """``(K,)``: share of the answers that are right."""
        return self.right / self.answered


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Fitted:
    """Find the temperature with the least negative log-likelihood (Guo et al. 2017, section 4.2).

    In ``b = 1/T`` the loss ``mean(logsumexp(b z) - b z_true)`` is convex; its derivative
    ``mean(E_softmax(b z)[z] - z_true)`` rises, so that its root is the minimum and there is one at
    most.

    Args:
        logits: ``(N, C)`` float32, finite.
        labels: ``(N,)`` class indices.
    """
    if len(labels) < LEAST_IMAGES:
        return Fitted(None, f"{len(labels)} images are too few (at least {LEAST_IMAGES})")
    centred = logits.astype(np.float64)
    centred -= centred.max(axis=1, keepdims=True)
    true = centred[np.arange(len(labels)), labels].mean()

    def slope(beta: float) -> float:
        expected = (special.softmax(beta * centred, axis=1) * centred).sum(axis=1)
        return float(expected.mean() - true)

    if slope(_HIGHEST_BETA) <= 0:
        return Fitted(None, "the sharper the better: (nearly) every answer is right")
    if slope(_LOWEST_BETA) >= 0:
        return Fitted(None, "the flatter the better: the answers are no better than chance")
    beta = optimize.brentq(slope, _LOWEST_BETA, _HIGHEST_BETA, xtol=1e-12, rtol=1e-12)
    return Fitted(1 / float(beta))


def coverage_curve(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]
) -> CoverageCurve:
    """Return coverage and accuracy for every threshold (El-Yaniv & Wiener 2010).

    Args:
        confidence: ``(N,)``.
        correct: ``(N,)``, whether the answer is right.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order].astype(np.float64)
    last_of_value = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return CoverageCurve(
        thresholds=ordered[last_of_value],
        answered=last_of_value.astype(np.int64) + 1,
        right=np.cumsum(correct[order])[last_of_value].astype(np.int64),
        images=len(confidence),
    )


def threshold_for_accuracy(curve: CoverageCurve, target: float) -> Fitted:
    """Return the confidence that answers the most images with at least this accuracy."""
    reaching = np.flatnonzero(curve.accuracy >= target)
    if not len(reaching) or curve.answered[reaching[-1]] < LEAST_IMAGES:
        best = curve.accuracy[curve.answered >= LEAST_IMAGES]
        found = f"the highest is {best.max():.3f}" if len(best) else "there are fewer in all"
        return Fitted(
            None,
            f"no threshold has accuracy {target:g} on at least {LEAST_IMAGES} images ({found})",
        )
    return Fitted(_between(curve, int(reaching[-1])))


def threshold_for_coverage(curve: CoverageCurve, target: float) -> Fitted:
    """Return the highest confidence that still answers this share of images."""
    if curve.images < LEAST_IMAGES:
        return Fitted(None, f"{curve.images} images are too few (at least {LEAST_IMAGES})")
    return Fitted(_between(curve, int(np.argmax(curve.coverage >= target))))


def conformal_threshold(probability: npt.NDArray[np.floating], coverage: float) -> Fitted:
    """Return the probability from which on a class belongs to a conformal set.

    Split conformal prediction with the score ``1 - p_true`` (LAC; Sadinle et al. 2019): its
    ``ceil((n + 1) * coverage)``-th smallest value on ``n`` calibration images covers a further
    image of the same distribution with at least that probability (Vovk et al. 2005).

    Args:
        probability: ``(N,)`` probabilities of the true class.
        coverage: Wanted share of sets that hold the true class.
    """
    images = len(probability)
    # 0.9 * 10 in floating point is a little more than 9; that is no reason to take the tenth.
    rank = math.ceil((images + 1) * coverage - 1e-9)
    if rank > images:
        least = math.ceil(coverage / (1 - coverage) - 1e-9)
        return Fitted(
            None, f"{images} images are too few for coverage {coverage:g} (at least {least})"
        )
    return Fitted(float(-np.sort(-probability.astype(np.float64))[rank - 1]))


def energy_limit(energy: npt.NDArray[np.float64], kept: float) -> Fitted:
    """Return the energy that this share of ``(N,)`` val energies does not exceed."""
    if len(energy) < LEAST_IMAGES:
        return Fitted(None, f"{len(energy)} images are too few (at least {LEAST_IMAGES})")
    return Fitted(float(np.quantile(energy, kept, method="higher")))


def _between(curve: CoverageCurve, position: int) -> float:
    """Return a threshold between two confidences that occur, so that rounding decides nothing."""
    if position + 1 == len(curve.thresholds):
        return 0.0
    return float(curve.thresholds[position : position + 2].mean())
