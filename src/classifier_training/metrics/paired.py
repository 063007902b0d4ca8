"""Tests of paired answers: McNemar, randomisation, and the correction for many of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Images times resamples held at a time: 16 MB of float64 an array.
_CHUNK_CELLS = 2_000_000


@dataclass(frozen=True)
class PairScores:
    """Scores of ``R`` resamples.

    Attributes:
        headline: ``(R,)`` by name; ``loss`` is there when losses were given.
        recall: ``(R, C)``, nan where a class has no image.
        f1: ``(R, C)``, 0 where a class neither has images nor was predicted.
    """

    headline: dict[str, Floats]
    recall: Floats
    f1: Floats


def weighted_scores(
    true: Ints, predicted: Ints, losses: Floats | None, weights: Floats, classes: int
) -> PairScores:
    """Score images that count with a weight each.

    Args:
        true: ``(N,)`` class indices.
        predicted: ``(N,)``, or ``(R, N)`` when the answers differ between the resamples.
        losses: ``(N,)`` or ``(R, N)``, or None.
        weights: ``(R, N)``.
        classes: ``C``.
    """
    right = predicted == true
    hits = _count(true, weights * right, classes)
    support = _count(true, weights, classes)
    called = _count(predicted, weights, classes)
    total = weights.sum(axis=1)
    recall = np.divide(hits, support, out=np.full_like(hits, np.nan), where=support > 0)
    both = support + called
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    headline = {
        "acc_top1": hits.sum(axis=1) / total,
        "acc_macro": np.nansum(recall, axis=1) / (support > 0).sum(axis=1),
        "f1_macro": f1.sum(axis=1) / (both > 0).sum(axis=1),
    }
    if losses is not None:
        headline["loss"] = (weights * losses).sum(axis=1) / total
    return PairScores(headline, recall, f1)


def group_draws(groups: Ints, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Draw groups with replacement; yield the ``(r, N)`` weights of images, ``R`` rows in all.

    With each image its own group that is the usual bootstrap; else the cluster bootstrap (Davison
    & Hinkley 1997, section 3.8).
    """
    count = int(groups.max()) + 1
    for rows in _chunks(len(groups), resamples):
        drawn = rng.integers(0, count, (rows, count))
        offsets = count * np.arange(rows)[:, None]
        times = np.bincount((drawn + offsets).ravel(), minlength=rows * count)
        yield times.reshape(rows, count)[:, groups].astype(np.float64)


def group_swaps(
    groups: Ints, resamples: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield ``(r, N)`` fair coins, one a group, ``R`` rows in all."""
    count = int(groups.max()) + 1
    for rows in _chunks(len(groups), resamples):
        yield (rng.random((rows, count)) < 0.5)[:, groups]


def percentiles(draws: Floats) -> tuple[Floats, Floats]:
    """Return the 2.5 and 97.5 percentiles over the first axis, nan-rows passed over."""
    empty = np.isnan(draws).all(axis=0)
    filled = np.where(empty, 0.0, draws)
    low, high = np.nanpercentile(filled, [2.5, 97.5], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def _count(index: Ints, weights: Floats, classes: int) -> Floats:
    """Sum ``(R, N)`` weights by class to ``(R, C)``."""
    rows = len(weights)
    flat = index + classes * np.arange(rows)[:, None]
    sums = np.bincount(flat.ravel(), weights.ravel(), minlength=rows * classes)
    return np.asarray(sums, dtype=np.float64).reshape(rows, classes)


def _chunks(images: int, resamples: int) -> Iterator[int]:
    size = max(1, min(resamples, _CHUNK_CELLS // max(1, images)))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


# Differences that are equal but for rounding count as equal.
ROUNDING = 1e-12


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of the images that only one of A and B got right.

    Attributes:
        fixed: Wrong in A, right in B.
        broken: Right in A, wrong in B.
        p_exact: Two-sided binomial p.
        p_mid: The same less half the probability of what was seen (Fagerland et al. 2013).
    """

    fixed: int
    broken: int
    p_exact: float
    p_mid: float


def mcnemar(fixed: int, broken: int) -> McNemar:
    """Test ``fixed`` against ``broken`` images, which a coin would make equal on average."""
    count, fewer = fixed + broken, min(fixed, broken)
    logs = [
        math.lgamma(count + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(count - hits + 1)
        - count * math.log(2)
        for hits in range(fewer + 1)
    ]
    tail, last = math.fsum(map(math.exp, logs)), math.exp(logs[-1])
    # With as many fixed as broken the tail holds the middle, and doubling counts it twice.
    return McNemar(fixed, broken, min(1.0, 2 * tail), min(1.0, 2 * tail - last))


def holm(values: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm 1979); nan is no test and stays nan."""
    corrected = [math.nan] * len(values)
    tested = sorted((p, row) for row, p in enumerate(values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, row) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[row] = largest
    return corrected


def randomisation_p(seen: Floats, null: Floats) -> Floats:
    """Return the share of ``(R, ...)`` swapped differences as large as the one seen.

    What was seen counts as one of them, so that p is never 0 (Davison & Hinkley 1997, eq. 4.11).
    """
    as_large = np.abs(null) >= np.abs(seen) - ROUNDING
    return np.asarray((1 + as_large.sum(axis=0)) / (1 + len(null)), dtype=np.float64)
