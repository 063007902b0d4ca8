"""95 % intervals: Wilson for proportions, a seeded bootstrap for everything else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from classifier_training.metrics.from_confusion import macro_of, macro_scores, per_class_of

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
    rng = np.random.default_rng(_SEED)
    chunks = [_drawn_scores(confusion, rng) for _ in range(_RESAMPLES // _CHUNK)]
    return {
        name: Estimate(
            float(value),
            *_percentiles(np.concatenate([chunk[name].numpy() for chunk in chunks])),
            "bootstrap",
        )
        for name, value in macro_scores(torch.from_numpy(confusion)).items()
    }


def _drawn_scores(confusion: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, Tensor]:
    """Return the macro scores of ``_CHUNK`` resamples, ``(_CHUNK,)`` float64 each."""
    true, predicted = np.nonzero(confusion)
    cells = confusion[true, predicted]
    total = int(cells.sum())
    counts = torch.from_numpy(rng.multinomial(total, cells / total, size=_CHUNK))

    def summed(by: npt.NDArray[np.int64], what: Tensor) -> Tensor:
        sums = torch.zeros(_CHUNK, len(confusion), dtype=torch.int64)
        return sums.index_add_(1, torch.from_numpy(by), what)

    right = counts * torch.from_numpy(true == predicted)
    return macro_of(
        per_class_of(summed(true, right), summed(true, counts), summed(predicted, counts))
    )


def mean_interval(values: npt.NDArray[np.float64]) -> Estimate:
    """Bootstrap the mean of one value an image."""
    rng = np.random.default_rng(_SEED)
    chunks = (
        rng.integers(0, len(values), (_CHUNK, len(values))) for _ in range(_RESAMPLES // _CHUNK)
    )
    means = np.concatenate([values[chunk].mean(axis=1) for chunk in chunks])
    return Estimate(float(values.mean()), *_percentiles(means), "bootstrap")


def _percentiles(draws: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
