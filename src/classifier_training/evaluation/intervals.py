"""95 % intervals: Wilson for proportions, a seeded bootstrap for everything else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from classifier_training.metrics.from_confusion import macro_scores

_RESAMPLES = 1000
_SEED = 0
_CHUNK = 50


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval.

    Attributes:
        value: The score.
        low: Lower bound.
        high: Upper bound.
        method: ``wilson`` or ``bootstrap``.
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


def wilson(hits: int, total: int) -> Estimate:
    """Estimate a proportion (Wilson 1927, as ``scipy.stats`` computes it)."""
    interval = stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return Estimate(hits / total, float(interval.low), float(interval.high), "wilson")


def macro_intervals(confusion: npt.NDArray[np.int64]) -> dict[str, Estimate]:
    """Bootstrap the macro scores of a ``(C, C)`` confusion matrix.

    Drawing images with replacement is drawing cells of the matrix from a multinomial, which needs
    no image at all.
    """
    matrix = torch.from_numpy(confusion)
    values = {name: float(value) for name, value in macro_scores(matrix).items()}
    classes = confusion.shape[0]
    cells = confusion.ravel()
    occupied = np.flatnonzero(cells)
    total = int(cells.sum())
    rng = np.random.default_rng(_SEED)
    draws: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(_RESAMPLES // _CHUNK):
        counts = rng.multinomial(total, cells[occupied] / total, size=_CHUNK)
        for row in counts:
            drawn = np.zeros_like(cells)
            drawn[occupied] = row
            scores = macro_scores(torch.from_numpy(drawn.reshape(classes, classes)))
            for name, value in scores.items():
                draws[name].append(float(value))
    return {
        name: Estimate(value, *_percentiles(draws[name]), "bootstrap")
        for name, value in values.items()
    }


def mean_interval(values: npt.NDArray[np.float64]) -> Estimate:
    """Bootstrap the mean of one value an image."""
    rng = np.random.default_rng(_SEED)
    chunks = (
        rng.integers(0, len(values), (_CHUNK, len(values))) for _ in range(_RESAMPLES // _CHUNK)
    )
    means = np.concatenate([values[chunk].mean(axis=1) for chunk in chunks])
    return Estimate(float(values.mean()), *_percentiles(means), "bootstrap")


def _percentiles(draws: list[float] | npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
