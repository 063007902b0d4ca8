"""When two implementations of one model agree: the tolerance of the whole project, in one place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Kernels sum in different orders; 1e-5 of the largest logit is what fp32 leaves after a ResNet.
RELATIVE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Agreement:
    """How far two sets of logits lie apart.

    Attributes:
        images: Number of images compared.
        worst: Largest ``|a - b| / max(1, max|a|)`` over images, where the tolerance is 1e-5.
        flips: Images whose class differs although their top two are further apart than that.
        worst_image: Index of the image with the largest difference, -1 without images.
    """

    images: int
    worst: float
    flips: int
    worst_image: int

    @property
    def holds(self) -> bool:
        """Whether every image is within the tolerance and none changes its class."""
        return self.worst <= RELATIVE_TOLERANCE and self.flips == 0

    def __str__(self) -> str:
        return (
            f"{self.images} images, largest relative logit difference {self.worst:.1e} "
            f"(tolerance {RELATIVE_TOLERANCE:.0e}), {self.flips} changed classes"
        )


def compare_logits(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> Agreement:
    """Compare two ``(N, C)`` float32 arrays of logits image by image.

    Raises:
        ValueError: The shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    if a.shape[0] == 0:
        return Agreement(0, 0.0, 0, -1)
    scale = np.maximum(1.0, np.abs(a.astype(np.float64)).max(axis=1))
    with np.errstate(invalid="ignore"):  # infinity less infinity is no number either
        relative = np.abs(a.astype(np.float64) - b).max(axis=1) / scale
    # A NaN on one side compares false with everything: make it the worst there is.
    relative = np.where(np.isfinite(relative), relative, np.inf)
    top_two = np.sort(a, axis=1)[:, -2:]
    clear = (top_two[:, 1] - top_two[:, 0]) > RELATIVE_TOLERANCE * scale
    flips = int((clear & (a.argmax(axis=1) != b.argmax(axis=1))).sum())
    worst_image = int(relative.argmax())
    return Agreement(a.shape[0], float(relative[worst_image]), flips, worst_image)


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return ``(N, C)`` float32 probabilities of ``(N, C)`` logits, summed in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
