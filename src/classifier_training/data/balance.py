"""Class weights for the loss, and drawing weights for the sampler."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

# Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", eq. 2; of the values
# they try, the one that suits classes of tens to hundreds of images.
_BETA = 0.999


def class_weights(
    counts: npt.NDArray[np.int64], kind: Literal["none", "inverse", "effective"]
) -> npt.NDArray[np.float32] | None:
    """Return ``(C,)`` float32 weights with mean 1 over the classes present, 0 for absent ones.

    ``inverse`` is ``1 / n``; ``effective`` is ``(1 - b) / (1 - b^n)`` with ``b = 0.999``.

    Args:
        counts: ``(C,)`` numbers of training images.
        kind: ``"none"`` gives ``None``.
    """
    if kind == "none":
        return None
    present = counts > 0
    safe = np.maximum(counts, 1).astype(np.float64)
    raw = 1.0 / safe if kind == "inverse" else (1.0 - _BETA) / (1.0 - _BETA**safe)
    weights = np.where(present, raw, 0.0)
    return np.asarray(weights * present.sum() / weights.sum(), dtype=np.float32)


def drawing_weights(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return ``(N,)`` probabilities with which each image is drawn so that classes come equally.

    Args:
        labels: ``(N,)`` class indices of the training images.
    """
    counts = np.bincount(labels)
    weights = 1.0 / counts[labels]
    return np.asarray(weights / weights.sum(), dtype=np.float64)
