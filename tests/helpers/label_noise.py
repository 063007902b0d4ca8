"""Wrong labels on purpose."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

# What each digit is confused with most.
DIGIT_PAIRS = {0: 6, 1: 8, 2: 3, 3: 2, 4: 9, 5: 9, 6: 0, 7: 1, 8: 1, 9: 4}


def plant(
    labels: npt.NDArray[np.int64],
    share: float,
    *,
    seed: int,
    pairs: Mapping[int, int] | None = None,
) -> npt.NDArray[np.int64]:
    """Return labels of which exactly ``round(share * N)`` are wrong.

    Args:
        labels: ``(N,)`` class indices 0..C-1.
        share: How many, 0..1.
        seed: Which ones.
        pairs: What each class becomes; by default any other class with equal chance.
    """
    rng = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    noisy = labels.copy()
    for row in rng.choice(len(labels), round(share * len(labels)), replace=False):
        old = int(labels[row])
        noisy[row] = pairs[old] if pairs else (old + rng.integers(1, classes)) % classes
    return noisy
