"""How much faster one model is than another, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats


@dataclass(frozen=True)
class SpeedUp:
    """Times of two models on the same batch, taken in turn.

    Attributes:
        batch: Images a run.
        before_ms: Median of the first model.
        after_ms: Median of the second.
        ratio: Median of the paired ratios, before by after: above 1 the second is faster.
        low: Lower bound of that median's two-sided 95 % interval.
    """

    batch: int
    before_ms: float
    after_ms: float
    ratio: float
    low: float

    def to_json(self) -> dict[str, Any]:
        """Return it as the sidecar records it."""
        return {
            "batch": self.batch,
            "fp32_ms": round(self.before_ms, 3),
            "int8_ms": round(self.after_ms, 3),
            "times_faster": round(self.ratio, 3),
            "at_least": round(self.low, 3),
        }

    def __str__(self) -> str:
        return (
            f"batch {self.batch}: {self.before_ms:.1f} ms, {self.after_ms:.1f} ms, "
            f"x{self.ratio:.2f} (at least x{self.low:.2f})"
        )


def measure_speed_up(
    before: Callable[[], object], after: Callable[[], object], *, batch: int, pairs: int
) -> SpeedUp:
    """Time two models in turn, so that what else the machine does hits both alike.

    Args:
        before: Runs the first model on the batch.
        after: Runs the second on it.
        batch: Images in the batch, for the record.
        pairs: How often; at least 6, below which a median has no 95 % interval.
    """
    before()
    after()
    seconds = np.empty((pairs, 2))
    for pair in range(pairs):
        first = pair % 2  # who goes first may matter
        for which in (first, 1 - first):
            started = time.perf_counter()
            (before, after)[which]()
            seconds[pair, which] = time.perf_counter() - started
    return speed_up(seconds, batch=batch)


def speed_up(seconds: npt.NDArray[np.float64], *, batch: int) -> SpeedUp:
    """Summarise ``(P, 2)`` seconds: column 0 of the first model, 1 of the second."""
    ratios = np.sort(seconds[:, 0] / seconds[:, 1])
    # The distribution-free interval of a median: of P signs, so many may come out low by chance.
    below = int(stats.binom.ppf(0.025, len(ratios), 0.5))
    medians = np.median(seconds, axis=0) * 1000
    return SpeedUp(
        batch=batch,
        before_ms=float(medians[0]),
        after_ms=float(medians[1]),
        ratio=float(np.median(ratios)),
        low=float(ratios[max(0, below - 1)]),
    )
