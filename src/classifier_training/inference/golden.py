"""Golden vectors: synthetic images with what a faithful implementation computes from them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifier_training.inference.agreement import RELATIVE_TOLERANCE, compare_logits
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.inference.sidecar import GoldenVector

# Tensor statistics are sums over ~1e5 float32 values; this bounds their rounding.
STATISTICS_TOLERANCE = 1e-4

LogitsOf = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class GoldenResult:
    """How one golden vector was reproduced."""

    name: str
    statistics_difference: float
    logits_difference: float
    logits_tolerance: float = RELATIVE_TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether preprocessing and logits are both within tolerance."""
        return (
            self.statistics_difference <= STATISTICS_TOLERANCE
            and self.logits_difference <= self.logits_tolerance
        )


def golden_images() -> dict[str, bytes]:
    """Return the synthetic images as PNG by name: wide, tall and small, none of user data.

    Edges at one-pixel scale make a wrong filter visible, distinct channels a wrong colour order,
    and the aspect ratios a wrong resize mode.
    """
    rng = np.random.default_rng(20260101)
    noise = rng.integers(0, 256, (48, 80, 3), dtype=np.uint8)
    ramp = np.zeros((90, 50, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 50, dtype=np.uint8)[None, :]
    ramp[..., 1] = np.linspace(255, 0, 90, dtype=np.uint8)[:, None]
    ramp[..., 2] = 40
    rows, columns = np.indices((32, 32))
    checks = np.where(((rows // 2 + columns // 3) % 2)[..., None], [230, 30, 90], [10, 200, 60])
    images = {"noise 80x48": noise, "ramp 50x90": ramp, "checks 32x32": checks.astype(np.uint8)}
    return {name: _png(pixels) for name, pixels in images.items()}


def make_golden(spec: PreprocessSpec, logits_of: LogitsOf) -> tuple[GoldenVector, ...]:
    """Compute the golden vectors of a model.

    Args:
        spec: Its preprocessing.
        logits_of: Maps ``(N, H, W, 3)`` uint8 pixels to ``(N, C)`` float32 logits.
    """
    vectors = []
    for name, png in golden_images().items():
        pixels = spec.load(png, name)[None]
        mean, std = _statistics(spec.normalize(pixels))
        logits = tuple(float(value) for value in logits_of(pixels)[0])
        vectors.append(GoldenVector(name, png, mean, std, logits))
    return tuple(vectors)


def replay_golden(
    golden: tuple[GoldenVector, ...],
    spec: PreprocessSpec,
    logits_of: LogitsOf,
    *,
    tolerance: float = RELATIVE_TOLERANCE,
) -> list[GoldenResult]:
    """Compute every golden vector again and say how far the result lies from what is stored."""
    results = []
    for vector in golden:
        pixels = spec.load(vector.png, vector.name)[None]
        mean, std = _statistics(spec.normalize(pixels))
        statistics = np.abs(np.subtract((*mean, *std), (*vector.mean, *vector.std))).max()
        stored = np.asarray([vector.logits], dtype=np.float32)
        difference = compare_logits(stored, logits_of(pixels)).worst
        results.append(GoldenResult(vector.name, float(statistics), difference, tolerance))
    return results


def _statistics(tensor: npt.NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = tensor[0].astype(np.float64)
    return (
        tuple(float(value) for value in channels.mean(axis=(1, 2))),
        tuple(float(value) for value in channels.std(axis=(1, 2))),
    )


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
