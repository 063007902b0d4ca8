"""Tests of paired answers: McNemar, randomisation, and the correction for many of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classifier_training.evaluation.paired_scores import Floats

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
