"""95 % intervals of scores. Which method a score has, and why, is told in ``docs/evaluation.md``.

Images of one group (a video, a player) are not independent. ``design_effect`` says how much wider
that makes an interval; every function here takes it, 1.0 being independent images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from classifier_training.metrics.probabilistic import RocAreas

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
Z = float(stats.norm.ppf((1 + LEVEL) / 2))

# Images that the pooled variance counts for in the variance of each class; see auroc_interval.
_PRIOR_IMAGES = 2.0


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval.

    Attributes:
        value: The score.
        low: Lower bound.
        high: Upper bound.
        method: ``wilson``, ``bootstrap``, ``delong``, ``inversion`` or ``hall``.
    """

    value: float
    low: float
    high: float
    method: str

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> dict[str, float | str]:
        """Return plain values."""
        return {"value": self.value, "low": self.low, "high": self.high, "method": self.method}


def design_effect(influence: Floats, groups: npt.NDArray[np.int64] | None) -> float:
    """Return by what the variance of a mean grows because images come in groups (Kish 1965).

    The variance of the sums over groups, over that of independent images; times the square of
    Student's over the normal quantile, because few groups tell their own variance badly, and worse
    when one of them may be far out. Never below 1.

    Args:
        influence: ``(N,)`` what each image adds to the score, such as "right or wrong".
        groups: ``(N,)`` group of each image from 0, or None where images are independent.
    """
    if groups is None:
        return 1.0
    sizes = np.bincount(groups)
    count, images = len(sizes), len(groups)
    if count == images or count < 2:
        return float(images) if count < 2 else 1.0  # one group: one independent observation
    centred = influence - influence.mean()
    alone = images / (images - 1) * float(centred @ centred)
    together = count / (count - 1) * float((np.bincount(groups, weights=centred) ** 2).sum())
    # Without any difference between images the worst is assumed: groups of one mind.
    ratio = together / alone if alone > 0 else float((sizes**2).sum() / images)
    freedom = _freedom(influence, ratio, count) if alone > 0 else count - 1
    return max(1.0, ratio * (student(freedom) / Z) ** 2)


def _freedom(influence: Floats, ratio: float, groups: int) -> float:
    """Return the degrees of freedom that the variance between groups is known with.

    By Satterthwaite from the variance of a variance, ``s^4 (k / G + 2 / (G - 1))``. The excess
    kurtosis k cannot be seen in a dozen groups; it is that of a beta distribution, between the
    least and the greatest value, with the mean and the correlation within groups that were
    measured, and never takes more than half of ``G - 1``.
    """
    low, high = float(influence.min()), float(influence.max())
    mean = float(np.clip((influence.mean() - low) / (high - low), 1e-6, 1 - 1e-6))
    size = len(influence) / groups
    correlation = min((ratio - 1) / (size - 1), 0.99)
    if correlation <= 0:
        return groups - 1
    both = 1 / correlation - 1
    first, second = mean * both, (1 - mean) * both
    product = first * second
    kurtosis = 6 * ((first - second) ** 2 * (both + 1) - product * (both + 2))
    kurtosis /= product * (both + 2) * (both + 3)
    # The rest of the variance is of the images of a group, of which there are many.
    between = correlation * size / (1 + (size - 1) * correlation)
    freedom = 2 / (max(0.0, kurtosis * between**2) / groups + 2 / (groups - 1))
    return max(freedom, (groups - 1) / 2)


def student(freedom: float) -> float:
    """Return the two-sided 95 % quantile of Student's t."""
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def wilson(hits: int, total: int, effect: float = 1.0) -> Estimate:
    """Estimate a proportion by the score interval (Wilson 1927).

    In groups, ``total / effect`` images count (Korn & Graubard 1998).
    """
    return _wilson(hits / total, total / effect, Z, "wilson")


def f1_interval(hits: int, support: int, predicted: int) -> Estimate:
    """Estimate the F1 of one class.

    F1 is ``2 J / (1 + J)`` of the Jaccard index J = hits / (hits + misses + false alarms), which is
    a proportion: its Wilson bounds, carried through that rising function, are those of F1.
    """
    jaccard = wilson(hits, support + predicted - hits)
    value, low, high = (2 * bound / (1 + bound) for bound in (
        jaccard.value, jaccard.low, jaccard.high
    ))  # fmt: skip
    return Estimate(value, low, high, "wilson")


def auroc_of_class(
    area: float, variance: float, positives: int, negatives: int, effect: float = 1.0
) -> Estimate:
    """Estimate the area of one class by DeLong's variance, mixed with what its size implies.

    With few images DeLong's is often 0. The variance that Hanley & McNeil (1982) give an area half
    an image inside of its ends counts for two images of the smaller side beside it.
    """
    images, smaller = positives + negatives, min(positives, negatives)
    inside = (area * images + 1) / (images + 2)
    one, two = inside / (2 - inside), 2 * inside**2 / (1 + inside)
    implied = (
        inside * (1 - inside)
        + (positives - 1) * (one - inside**2)
        + (negatives - 1) * (two - inside**2)
    ) / (positives * negatives)
    mixed = (smaller * variance + _PRIOR_IMAGES * implied) / (smaller - 1 + _PRIOR_IMAGES)
    size = inside * (1 - inside) / (mixed * effect)
    return _wilson(area, size, student(smaller + 4), "delong")


def auroc_interval(
    roc: RocAreas, labels: npt.NDArray[np.int64], effect: float = 1.0
) -> Estimate | None:
    """Estimate the macro area (DeLong et al. 1988) over new images in the same class shares.

    The variance of a class with few images is shrunk towards that of classes like it: one image
    has none of its own. The bounds are Wilson's for the number of images that a proportion of
    that variance would have, with Student's quantile (Satterthwaite's degrees of freedom).

    Args:
        roc: The areas.
        labels: ``(N,)`` class indices.
        effect: Design effect of groups.
    """
    value = roc.macro
    if value is None:
        return None
    counts = np.bincount(labels, minlength=len(roc.areas))
    if len(counts) == 2:  # one area, seen from both sides
        fewer, more = sorted(counts.tolist())
        return auroc_of_class(value, float(roc.own_variances.mean()), fewer, more, effect)
    scaled = roc.deviations * counts[labels]
    sums = np.bincount(labels, weights=scaled, minlength=len(counts))
    raw = np.bincount(labels, weights=scaled**2, minlength=len(counts))
    present = counts > 0
    sizes = counts[present].astype(np.float64)
    squares: Floats = raw[present] - sums[present] ** 2 / sizes
    inside = (len(labels) * value + 1) / (len(labels) + 2)
    classes = int((~np.isnan(roc.areas)).sum())
    weights = 1 / sizes
    pseudo = float(weights.mean())
    pooled = ((weights * squares).sum() + pseudo * inside * (1 - inside) / classes**2) / (
        (weights * (sizes - 1)).sum() + pseudo
    )
    freedom = sizes - 1 + _PRIOR_IMAGES
    parts = weights * (squares + _PRIOR_IMAGES * pooled) / freedom
    variance = float(parts.sum())
    quantile = student(max(1.0, variance**2 / float((parts**2 / freedom).sum())))
    together = _wilson(value, inside * (1 - inside) / (variance * effect), quantile, "delong")
    return _no_surer_than_its_classes(together, roc, counts, effect)


def _no_surer_than_its_classes(
    together: Estimate, roc: RocAreas, counts: npt.NDArray[np.int64], effect: float
) -> Estimate:
    """Widen the macro area's bounds to what the intervals of the single areas allow.

    Where nearly all is right, a test set often shows no variance at all, while the interval of each
    class knows that it is small. Distances of their bounds add up in quadrature (Zou & Donner 2008,
    "Construction of confidence limits about effect measures", for independent estimates).
    """
    single = [
        auroc_of_class(float(area), float(variance), int(count), int(counts.sum() - count), effect)
        for area, variance, count in zip(roc.areas, roc.own_variances, counts, strict=True)
        if not np.isnan(area)
    ]
    below = math.hypot(*(each.value - each.low for each in single)) / len(single)
    above = math.hypot(*(each.high - each.value for each in single)) / len(single)
    return replace(
        together,
        low=max(0.0, min(together.low, together.value - below)),
        high=min(1.0, max(together.high, together.value + above)),
    )


def mean_interval(values: Floats, effect: float = 1.0) -> Estimate:
    """Estimate the mean of one value an image.

    Student's t, transformed so that the skewness of losses (few wrong answers, far out) is taken
    out: the cubic of Hall (1992, "On the removal of skewness by transformation").
    """
    images, value = len(values), float(values.mean())
    centred = values - value
    spread = float(np.sqrt((centred**2).mean()))
    if images < 2 or spread == 0.0:
        return Estimate(value, value, value, "hall")
    skew = float((centred**3).mean()) / spread**3
    root = math.sqrt(images)
    quantile = student(images - 1)

    def untransformed(bound: float) -> float:
        if abs(skew) < 1e-9:
            return bound
        cubed = 1 + skew * (bound / root - skew / (6 * images))
        return 3 * root / skew * (math.copysign(abs(cubed) ** (1 / 3), cubed) - 1)

    error = spread * math.sqrt(effect / (images - 1))
    low, high = (value - untransformed(bound) * error for bound in (quantile, -quantile))
    return Estimate(value, min(low, value), max(high, value), "hall")


def _wilson(value: float, size: float, quantile: float, method: str) -> Estimate:
    """Return Wilson's interval of a proportion among ``size`` images, not always a whole number."""
    share = quantile**2 / size
    centre = (value + share / 2) / (1 + share)
    half = quantile / (1 + share) * math.sqrt(value * (1 - value) / size + share / (4 * size))
    low = 0.0 if value == 0 else max(0.0, centre - half)
    high = 1.0 if value == 1 else min(1.0, centre + half)
    return Estimate(value, min(low, value), max(high, value), method)
