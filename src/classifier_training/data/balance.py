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


def drawing_weights(
    labels: npt.NDArray[np.int64], kind: Literal["none", "weighted", "sqrt"]
) -> npt.NDArray[np.float64] | None:
    """Return ``(N,)`` probabilities with which each image is drawn.

    A class of ``n`` images is drawn in proportion to ``n ** 0`` (``weighted``) or ``n ** 0.5``
    (``sqrt``, as in Mahajan et al. 2018); its images equally often among themselves.

    Args:
        labels: ``(N,)`` class indices of the training images.
        kind: ``"none"`` gives ``None``: every image once.
    """
    if kind == "none":
        return None
    counts = np.bincount(labels)[labels].astype(np.float64)
    weights = 1.0 / (counts if kind == "weighted" else np.sqrt(counts))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def log_priors(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return ``(C,)`` float32 logarithms of the class shares, for logit adjustment.

    A class without training images counts as one image: the logarithm of nothing would make the
    loss infinite.

    Args:
        counts: ``(C,)`` numbers of training images.
    """
    counted = np.maximum(counts, 1).astype(np.float64)
    return np.asarray(np.log(counted / counts.sum()), dtype=np.float32)
